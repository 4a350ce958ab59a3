"""The metrics against scikit-learn, and against plain float64 Python."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from egra_dist.evaluate.metrics import MetricSums, find_hits

NUM_ITEMS = 30


def reference(ranked, positives, cutoff):
    """One user's metrics, written from their textbook definitions."""
    hits = [item in positives for item in ranked[:cutoff]]
    ideal = min(len(positives), cutoff)
    precision = [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits))]
    return {
        "recall": sum(hits) / len(positives),
        "ndcg": sum(h / math.log2(i + 2) for i, h in enumerate(hits))
        / sum(1 / math.log2(i + 2) for i in range(ideal)),
        "precision": sum(hits) / cutoff,
        "map": sum(p * h for p, h in zip(precision, hits, strict=True)) / ideal,
        "hit_rate": float(any(hits)),
    }


def means_of(ranked, positives, cutoffs, num_items=NUM_ITEMS):
    sums = MetricSums(cutoffs)
    indptr = torch.tensor([0, *np.cumsum([len(p) for p in positives])])
    items = torch.tensor([i for p in positives for i in sorted(p)], dtype=torch.int64)
    sums.add(find_hits(torch.tensor(ranked), indptr, items, num_items), indptr.diff())
    return sums.means()


users = st.lists(
    st.tuples(
        st.permutations(range(NUM_ITEMS)).map(lambda items: items[:20]),
        st.sets(st.integers(0, NUM_ITEMS - 1), min_size=1),
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=40)
@given(users)
def test_means_equal_the_textbook_definitions(users):
    ranked, positives = zip(*users, strict=True)
    means = means_of(ranked, positives, [1, 5, 20])
    for cutoff in (1, 5, 20):
        expected = [reference(r, p, cutoff) for r, p in users]
        for name in expected[0]:
            mean = np.mean([values[name] for values in expected])
            assert means[f"{name}_at_{cutoff}"] == pytest.approx(mean, abs=1e-9)


def test_ndcg_and_average_precision_agree_with_scikit_learn():
    random = np.random.default_rng(0)
    relevant = random.random((50, NUM_ITEMS)) < 0.2
    relevant[:, 0] |= ~relevant.any(1)
    scores = random.random((50, NUM_ITEMS))
    ranked = np.argsort(-scores, axis=1)
    positives = [set(np.flatnonzero(row)) for row in relevant]
    means = means_of(ranked, positives, [5, NUM_ITEMS])
    assert means["ndcg_at_5"] == pytest.approx(ndcg_score(relevant, scores, k=5), abs=1e-9)
    average_precision = [
        average_precision_score(r, s) for r, s in zip(relevant, scores, strict=True)
    ]
    assert means[f"map_at_{NUM_ITEMS}"] == pytest.approx(np.mean(average_precision), abs=1e-9)


def test_more_positives_than_the_cutoff():
    means = means_of([list(range(10))], [set(range(25))], [10])
    assert means["ndcg_at_10"] == means["map_at_10"] == means["precision_at_10"] == 1
    assert means["recall_at_10"] == pytest.approx(10 / 25, abs=1e-9)


def test_lists_that_end_early_have_no_hits_beyond_their_end():
    means = means_of([[3, -1, -1]], [{3, NUM_ITEMS - 1}], [1, 3])
    assert means["recall_at_3"] == means["recall_at_1"] == 0.5
    assert means["precision_at_3"] == pytest.approx(1 / 3)


def test_users_without_positives_do_not_count():
    hits = torch.tensor([[True, False], [False, False]])
    sums = MetricSums([2])
    sums.add(hits, torch.tensor([1, 0]))
    assert sums.num_users == 1
    assert sums.means()["recall_at_2"] == 1


def test_nobody_to_evaluate_gives_no_figures():
    sums = MetricSums([5])
    sums.add(torch.zeros(0, 5, dtype=torch.bool), torch.zeros(0, dtype=torch.int64))
    assert sums.means() == {}


def test_the_order_of_users_cannot_change_a_figure():
    random = torch.Generator().manual_seed(1)
    hits = torch.rand(5000, 50, generator=random) < 0.1
    lengths = hits.sum(1) + torch.randint(1, 30, (5000,), generator=random)
    expected = MetricSums([5, 10, 20, 50])
    expected.add(hits, lengths)
    for size in (1, 7, 999):
        order = torch.randperm(5000, generator=random)[: 5000 if size > 1 else 300]
        whole, parts = MetricSums([5, 10, 20, 50]), MetricSums([5, 10, 20, 50])
        whole.add(hits[order.sort().values], lengths[order.sort().values])
        for part in order.split(size):
            parts.add(hits[part], lengths[part])
        assert parts.means() == whole.means()
        assert size == 1 or parts.means() == expected.means()
