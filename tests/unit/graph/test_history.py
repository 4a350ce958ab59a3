import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.timed import Timed
from egra_dist.catalog.writer import writing_catalog
from egra_dist.errors import UserError
from egra_dist.graph.history import latest_weights, means_of_latest


def naive(timed: Timed, decay: float) -> np.ndarray:
    """The same interaction by interaction, in float64."""
    weights = np.zeros(len(timed.users))
    for user in set(timed.users.tolist()):
        own = np.flatnonzero(timed.users == user)
        instants = sorted(set(timed.times[own].tolist()), reverse=True)
        for row in own:
            weights[row] = decay ** instants.index(timed.times[row])
        weights[own] /= weights[own].sum()
    return weights


def random_timed(seed: int, num_users: int = 9, num_times: int = 6) -> Timed:
    random = np.random.default_rng(seed)
    users = np.sort(random.integers(num_users, size=random.integers(1, 60)))
    items, times = random.integers(30, size=len(users)), random.integers(num_times, size=len(users))
    return Timed(users.astype(np.int32), items.astype(np.int32), times)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), decay=st.floats(0.01, 1))
def test_weights_are_those_of_the_formula(seed, decay):
    timed = random_timed(seed)
    np.testing.assert_allclose(latest_weights(timed, decay), naive(timed, decay), rtol=1e-6)


def test_the_latest_weighs_most_and_equal_times_weigh_the_same():
    users, times = np.array([4, 4, 4, 7], np.int32), np.array([30, 10, 30, 5])
    weights = latest_weights(Timed(users, np.arange(4, dtype=np.int32), times), 0.5)
    np.testing.assert_allclose(weights, [0.4, 0.2, 0.4, 1])


def test_weights_of_a_long_history_do_not_vanish():
    timed = Timed(np.zeros(5000, np.int32), np.arange(5000, dtype=np.int32), np.arange(5000))
    weights = latest_weights(timed, 0.1)
    assert weights[-1] == pytest.approx(0.9) and weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("block", [(0, 12), (3, 8), (11, 12)])
def test_means_are_those_of_the_formula(tmp_path, block):
    timed = random_timed(1, num_users=11)  # nobody is user 11
    pairs = np.unique(np.stack([timed.users, timed.items]), axis=1).astype(np.int32)
    times = np.random.default_rng(2).integers(5, size=pairs.shape[1])
    timed = Timed(*pairs, times)
    with writing_catalog(tmp_path / "catalog", {}, {}) as writer:
        writer.add_entities("users", pa.table({"raw_id": range(12)}))
        writer.add_entities("items", pa.table({"raw_id": range(30)}))
        writer.add_interactions("train", *timed)
    vectors = np.random.default_rng(3).standard_normal((30, 4)).astype(np.float32)

    means = means_of_latest(Catalog.open(tmp_path / "catalog"), slice(*block), vectors, 0.3)

    expected = np.zeros((12, 4))
    np.add.at(expected, timed.users, naive(timed, 0.3)[:, None] * vectors[timed.items])
    np.testing.assert_allclose(means, expected[slice(*block)], atol=1e-6)
    assert means.dtype == np.float32
    if block[1] == 12:
        assert not means[-1].any()


def test_an_order_that_is_not_known_is_not_guessed(tmp_path):
    with writing_catalog(tmp_path / "catalog", {}, {}) as writer:
        writer.add_entities("users", pa.table({"raw_id": [0]}))
        writer.add_entities("items", pa.table({"raw_id": [0, 1]}))
        writer.add_interactions("train", np.zeros(2, np.int32), np.arange(2, dtype=np.int32))
    catalog, vectors = Catalog.open(tmp_path / "catalog"), np.eye(2, dtype=np.float32)
    assert means_of_latest(catalog, slice(0, 1), vectors, 1.0).tolist() == [[0.5, 0.5]]
    with pytest.raises(UserError, match="has no times"):
        means_of_latest(catalog, slice(0, 1), vectors, 0.5)
