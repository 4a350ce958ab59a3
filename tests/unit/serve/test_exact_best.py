"""The best items against a full sort of exact scores."""

import faiss
import numpy as np
import pytest
import torch

from egra_dist.evaluate.inner_product import exact_dot as exact_dot_of_evaluation
from egra_dist.serve.egra_model.ranking import Ranker, exact_dot

NUM_ITEMS, DIM, K = 500, 13, 20


def vectors(num_rows, seed):
    return np.random.default_rng(seed).standard_normal((num_rows, DIM)).astype(np.float32)


def ranker(items, index=None):
    index = index or faiss.IndexFlatIP(DIM)
    if not index.is_trained:
        index.train(items)
    index.add(items)
    return Ranker(items, index)


def sorted_fully(items, query, left_out, k):
    scores = exact_dot(query, items)
    scores[left_out] = -np.inf
    best = np.lexsort((np.arange(len(items)), -scores))[:k]
    return best[scores[best] > -np.inf], scores


def test_scores_are_those_of_the_evaluation():
    left, right = vectors(40, 1), vectors(40, 2)
    expected = exact_dot_of_evaluation(torch.from_numpy(left), torch.from_numpy(right))
    assert np.array_equal(exact_dot(left, right), expected.numpy())


@pytest.mark.parametrize("ties", [False, True])
def test_flat_index_gives_exactly_the_best(ties):
    """Also among hundreds of items whose scores differ by nothing or by rounding."""
    items = vectors(NUM_ITEMS, 3)
    if ties:
        items[100:] = items[0]
        items[300:] *= np.float32(1 + 2**-22)
    queries = vectors(60, 4)
    random = np.random.default_rng(5)
    left_out = [random.choice(NUM_ITEMS, size, replace=False) for size in range(0, 480, 8)]
    best = ranker(items).best(queries, left_out, K)
    for row, (query, out) in enumerate(zip(queries, left_out, strict=True)):
        expected, scores = sorted_fully(items, query, out, K)
        assert best.items[row].tolist() == expected.tolist()
        assert np.array_equal(best.scores[row], scores[expected])


def test_where_few_items_are_left_the_rest_is_empty():
    items = vectors(30, 6)
    best = ranker(items).best(vectors(2, 7), [np.arange(25), np.arange(0)], 50)
    assert (best.items >= 0).sum(axis=1).tolist() == [5, 30]
    assert np.isneginf(best.scores[0, 5:]).all() and (best.items[0, 5:] == -1).all()


def test_index_that_finds_less_is_scored_exactly_all_the_same():
    items = vectors(NUM_ITEMS, 8)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(DIM), DIM, 10, faiss.METRIC_INNER_PRODUCT)
    queries = vectors(5, 9)
    best = ranker(items, index).best(queries, [np.arange(3)] * 5, 100)
    assert (best.items == -1).any()  # one list of ten holds no hundred items
    for query, found, scores in zip(queries, best.items, best.scores, strict=True):
        found = found[found >= 0]
        assert len(found) and not np.isin(found, np.arange(3)).any()
        assert np.array_equal(scores[: len(found)], exact_dot(query, items[found]))
        assert (np.diff(scores[: len(found)]) <= 0).all()
