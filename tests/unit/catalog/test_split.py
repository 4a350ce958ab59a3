from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egra_dist.catalog.split import (
    TEST,
    TRAIN,
    VALID,
    split_by_ratio,
    split_by_time,
    split_last_out,
)

RATIOS = (0.8, 0.1, 0.1)
user_counts = st.lists(st.integers(0, 40), max_size=8)


def counts_per_user(labels, num_rows):
    """``[(train, valid, test)]`` per user; asserts that the order is train, valid, test."""
    counts = []
    for part in np.split(labels, np.cumsum(num_rows)[:-1]) if len(num_rows) else []:
        assert list(part) == sorted(part)
        counts.append(tuple(int((part == label).sum()) for label in (TRAIN, VALID, TEST)))
    return counts


def reference_ratio(num_rows, ratios):
    """RecBole's ``_calcu_split_ids``, one user at a time."""
    counts = [floor(ratio * num_rows + 1e-9) for ratio in ratios]
    counts[0] = num_rows - counts[1] - counts[2]
    for part in (2, 1):
        if counts[0] <= 1:
            break
        if counts[part] == 0 and ratios[part] > 0:
            counts[part] += 1
            counts[0] -= 1
    return tuple(counts)


@settings(max_examples=60, deadline=None)
@given(user_counts, st.sampled_from([RATIOS, (0.7, 0.1, 0.2), (0.9, 0.0, 0.1), (1.0, 0.0, 0.0)]))
def test_ratio_split_agrees_with_the_rule_for_one_user(num_rows, ratios):
    labels = split_by_ratio(np.array(num_rows, dtype=np.int64), ratios)
    expected = [reference_ratio(count, ratios) for count in num_rows]
    assert counts_per_user(labels, num_rows) == expected


@pytest.mark.parametrize(
    ("num_rows", "expected"),
    [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (10, (8, 1, 1)), (30, (24, 3, 3))],
)
def test_ratio_split_of_one_user(num_rows, expected):
    assert counts_per_user(split_by_ratio(np.array([num_rows]), RATIOS), [num_rows]) == [expected]


@settings(max_examples=30, deadline=None)
@given(user_counts)
def test_last_out_holds_out_two_and_never_the_only_one(num_rows):
    labels = split_last_out(np.array(num_rows, dtype=np.int64))
    expected = [(max(n - 2, min(n, 1)), int(n >= 3), int(n >= 2)) for n in num_rows]
    assert counts_per_user(labels, num_rows) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=40))
def test_time_split_cuts_where_the_shares_are_reached(times):
    labels = split_by_time(np.array(times), RATIOS)
    ordered = sorted(times)
    cuts = [ordered[max(-(-len(times) * share // 10) - 1, 0)] for share in (8, 9)]
    expected = [sum(time > cut for cut in cuts) for time in times]
    assert labels.tolist() == expected


def test_time_split_of_distinct_times_has_the_shares():
    labels = split_by_time(np.random.default_rng(0).permutation(1000), RATIOS)
    assert np.bincount(labels).tolist() == [800, 100, 100]
