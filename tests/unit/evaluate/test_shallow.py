"""The shallow yardsticks against dense float64 formulas."""

import numpy as np
import pytest
import scipy.sparse

from egra_dist.errors import UserError
from egra_dist.evaluate.shallow import Ease, ItemKnn
from egra_dist.graph.csr import Csr


@pytest.fixture
def dense():
    return (np.random.default_rng(0).random((40, 25)) < 0.2).astype(np.float64)


def csr(dense):
    matrix = scipy.sparse.csr_array(dense)
    return Csr(matrix.indptr.astype(np.int64), matrix.indices, None, dense.shape[1])


def test_ease_predicts_each_item_from_the_others_by_ridge_regression(dense):
    """Column j of B solves a ridge regression of item j on all other items."""
    model = Ease.fit(csr(dense), regularization=3.0)
    assert model.weights.diagonal().eq(0).all()
    for item in (0, 7, 24):
        others = np.delete(np.arange(25), item)
        features = dense[:, others]
        gram = features.T @ features + 3.0 * np.eye(24)
        expected = np.linalg.solve(gram, features.T @ dense[:, item])
        np.testing.assert_allclose(model.weights[others, item], expected, atol=1e-5)


def test_ease_scores(dense):
    model = Ease.fit(csr(dense), 3.0)
    users = np.array([3, 9, 39])
    expected = dense[users] @ model.weights.numpy().astype(np.float64)
    np.testing.assert_allclose(model.score_users(users), expected, atol=1e-5)


def test_ease_refuses_what_it_cannot_hold(dense):
    with pytest.raises(UserError, match=r"25 items.*at most 24"):
        Ease.fit(csr(dense), 3.0, max_items=24)
    with pytest.raises(UserError, match="regularization 0"):
        Ease.fit(csr(dense), 0)


@pytest.mark.parametrize("block_size", [4, 100])
def test_item_knn_keeps_the_most_similar_items(dense, block_size):
    model = ItemKnn.fit(csr(dense), k=5, shrinkage=2.0, block_size=block_size)
    counts = dense.sum(0)
    similarity = (dense.T @ dense) / (np.sqrt(np.outer(counts, counts)) + 2.0)
    np.fill_diagonal(similarity, 0)
    kth = -np.sort(-similarity, axis=1)[:, 4:5]
    similarity[similarity < kth] = 0
    np.testing.assert_allclose(model.similarity.toarray(), similarity.T, atol=1e-6)
    users = np.array([0, 5])
    np.testing.assert_allclose(model.score_users(users), dense[users] @ similarity.T, atol=1e-5)


def test_item_knn_with_items_nobody_has(dense):
    dense[:, 3] = 0
    model = ItemKnn.fit(csr(dense), k=5, shrinkage=0.0)
    assert model.similarity[[3]].nnz == 0
    assert model.score_users(np.arange(40)).isfinite().all()
