"""The metrics against scikit-learn, and against plain float64 Python."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from egra_dist.evaluate.metrics import MetricSums

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


def means_of(ranked, positives, cutoffs):
    """Means for users with ranked lists ``[num_users, n]`` and sets of positives."""
    sums = MetricSums(cutoffs)
    pairs = [(user, item) for user, items in enumerate(positives) for item in items]
    lists = [list(items) for items in ranked]
    ranks = [lists[u].index(i) if i in lists[u] else 10**6 for u, i in pairs]
    sums.add(torch.tensor([user for user, _ in pairs]), torch.tensor(ranks))
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
    for name in ("ndcg", "map", "precision"):
        assert 1 - 1e-8 < means[f"{name}_at_10"] <= 1
    assert means["recall_at_10"] == pytest.approx(10 / 25, abs=1e-9)


def test_nobody_to_evaluate_gives_no_figures():
    sums = MetricSums([5])
    sums.add(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert sums.means() == {}


def test_the_order_and_grouping_of_users_cannot_change_a_figure():
    random = torch.Generator().manual_seed(1)
    users = torch.arange(400).repeat_interleave(4)
    ranks = torch.cat([torch.randperm(90, generator=random)[:4] for _ in range(400)])
    whole = MetricSums([5, 10, 20, 50])
    whole.add(users, ranks)
    for size in (1, 7, 999):
        parts = MetricSums([5, 10, 20, 50])
        for part in torch.randperm(400, generator=random).split(size):
            rows = (part.sort().values[:, None] * 4 + torch.arange(4)).flatten()
            parts.add(users[rows], ranks[rows])
        assert parts.means() == whole.means()


def test_margins_are_those_of_the_users_values():
    random = np.random.default_rng(0)
    num_users, cutoff = 400, 5
    users = np.repeat(np.arange(num_users), random.integers(1, 4, num_users))
    ranks = np.concatenate(
        [random.choice(12, size, replace=False) for size in np.bincount(users).tolist()]
    )
    sums = MetricSums([cutoff])
    for half in (users < 150, users >= 150):
        sums.add(torch.from_numpy(users[half]), torch.from_numpy(ranks[half]))
    found = np.bincount(users, ranks < cutoff)
    values = {"recall": found / np.bincount(users), "hit_rate": found > 0}
    for name, of_users in values.items():
        margin = 1.96 * of_users.std(ddof=1) / np.sqrt(num_users)
        assert sums.margins()[f"{name}_at_5"] == pytest.approx(margin, rel=1e-3)
    assert set(sums.margins()) == set(sums.means())


def test_ideal_gains_are_rounded_once():
    sums = MetricSums([20, 700])
    discounts = [1 / math.log2(rank + 2) for rank in range(700)]
    assert sums._ideal_gains.tolist() == [math.fsum(discounts[:n]) for n in range(701)]
