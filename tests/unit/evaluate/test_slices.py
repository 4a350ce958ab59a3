"""What belongs to which slice."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from egra_dist.evaluate.slices import history_slices, popularity_slices, standard_slices


def test_each_popularity_group_covers_a_third_of_the_interactions():
    counts = np.array([1, 30, 10, 0, 10, 10, 4, 5, 10, 10, 0])
    head, torso, tail, cold = (part.items for part in popularity_slices(counts))
    assert np.flatnonzero(head).tolist() == [1]
    assert np.flatnonzero(torso).tolist() == [2, 4, 5]
    assert np.flatnonzero(tail).tolist() == [0, 6, 7, 8, 9]
    assert np.flatnonzero(cold).tolist() == [3, 10]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_popularity_groups_partition_the_items_from_popular_to_rare(counts):
    counts = np.array(counts)
    groups = [part.items for part in popularity_slices(counts)]
    np.testing.assert_array_equal(np.sum(groups, axis=0), 1)
    for upper, lower in pairwise(groups):
        if upper.any() and lower.any():
            assert counts[upper].min() >= counts[lower].max()
    if counts.any():
        assert counts[groups[0]].sum() * 3 >= counts.sum()


def test_history_groups_partition_the_users():
    lengths = np.arange(60)
    groups = {part.name: part.users for part in history_slices(lengths)}
    np.testing.assert_array_equal(np.sum(list(groups.values()), axis=0), 1)
    assert lengths[groups["history_5_9"]].tolist() == [5, 6, 7, 8, 9]
    assert lengths[groups["history_20_up"]].min() == 20


def test_only_modalities_that_some_item_lacks_get_a_slice():
    present = {"image": np.array([True, False]), "text": np.array([True, True])}
    slices = {part.name: part for part in standard_slices(np.ones(2), np.ones(3), present)}
    assert "no_text" not in slices
    assert slices["no_image"].items.tolist() == [False, True]
