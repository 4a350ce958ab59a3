import itertools

import numpy as np
import pytest

from egra_dist.graph.behavior import merge, normalize, sample_edges
from egra_dist.graph.csr import Csr
from tests.matrices import csr_of, dense_of


def reference(training, items, beta):
    """D^-1/2 A D^-1/2 in float64."""
    num_users = len(training)
    adjacency = np.zeros((sum(training.shape),) * 2)
    adjacency[:num_users, num_users:] = training
    adjacency[num_users:, :num_users] = training.T
    adjacency[num_users:, num_users:] = beta * items
    degrees = adjacency.sum(1)
    scale = np.divide(1, np.sqrt(degrees), where=degrees > 0, out=np.zeros_like(degrees))
    return scale[:, None] * adjacency * scale


@pytest.fixture
def graph():
    random = np.random.default_rng(3)
    training = (random.random((7, 5)) < 0.4).astype(float)
    training[2] = 0  # a user without interactions
    items = (random.random((5, 5)) < 0.3).astype(float)
    np.fill_diagonal(items, 0)
    return training, items


@pytest.mark.parametrize("beta", [0.0, 0.2, 1.0])
def test_merged_graph_is_normalised_with_its_own_degrees(graph, beta):
    training, items = graph
    merged = merge(csr_of(training), csr_of(items), beta)
    np.testing.assert_allclose(dense_of(merged), reference(training, items, beta), atol=1e-7)


def test_without_item_edges_it_is_the_plain_graph(graph):
    training, items = graph
    plain = merge(csr_of(training), None, beta=1.0)
    np.testing.assert_allclose(dense_of(plain), reference(training, 0 * items, 1), atol=1e-7)


def test_rows_without_entries_stay_empty():
    matrix = normalize(csr_of(np.array([[0.0, 2.0], [0.0, 0.0]])))
    assert np.isfinite(dense_of(matrix)).all()


def test_saved_matrix_comes_back_memory_mapped(tmp_path, graph):
    matrix = csr_of(graph[0])
    matrix.save(tmp_path / "r")
    loaded = Csr.load(tmp_path / "r")
    assert isinstance(loaded.indices, np.memmap)
    assert np.array_equal(dense_of(loaded), dense_of(matrix))
    assert np.allclose(loaded.row_degrees(), graph[0].sum(1))


def random_training(seed=0, num_users=40, num_items=25):
    random = np.random.default_rng(seed)
    popularity = 1 / np.arange(1, num_items + 1)
    return csr_of((random.random((num_users, num_items)) < popularity).astype(float))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.999, 1.0])
def test_sampled_edges_are_so_many_of_those_there_are(share):
    training = random_training()
    sample = sample_edges(training, share, np.random.default_rng(1))
    assert sample.num_entries == round(share * training.num_entries)
    assert (sample.num_rows, sample.num_columns) == (training.num_rows, training.num_columns)
    kept = dense_of(sample)
    assert kept.sum() == sample.num_entries  # no edge twice
    assert (kept <= dense_of(training)).all()
    for first, last in itertools.pairwise(sample.indptr):
        assert (np.diff(sample.indices[first:last]) > 0).all()


def test_sampled_edges_are_those_of_the_generator():
    training = random_training()
    one, again, other = (
        dense_of(sample_edges(training, 0.3, np.random.default_rng(seed))) for seed in (1, 1, 2)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_edges_of_rare_ends_are_kept_more_often():
    """Against successive draws in proportion to 1 / sqrt(d_u d_i), without replacement."""
    interactions = np.zeros((6, 4))
    interactions[:, 0] = interactions[0, :] = 1  # a popular item, a busy user
    interactions[1, 1] = interactions[2, 2] = 1
    training = csr_of(interactions)
    random = np.random.default_rng(0)
    num_rounds = 6000
    kept = (
        sum(dense_of(sample_edges(training, 0.4, random)) for _ in range(num_rounds)) / num_rounds
    )

    users, items = np.nonzero(interactions)
    weights = 1 / np.sqrt(interactions.sum(1)[users] * interactions.sum(0)[items])
    expected = np.zeros_like(interactions)
    for _ in range(num_rounds):
        chosen = random.choice(
            len(users), round(0.4 * len(users)), replace=False, p=weights / weights.sum()
        )
        expected[users[chosen], items[chosen]] += 1 / num_rounds
    np.testing.assert_allclose(kept, expected, atol=0.03)
    assert kept[0, 0] < kept[1, 0] < kept[1, 1]
