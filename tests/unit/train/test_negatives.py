import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egra_dist.graph.products import column_counts
from egra_dist.train.negatives import NegativeSampler, has_entry
from tests.matrices import csr_of


def random_training(num_users, num_items, density, seed):
    dense = np.random.default_rng(seed).random((num_users, num_items)) < density
    return csr_of(dense, has_values=False), dense


@settings(max_examples=60, deadline=None)
@given(
    num_users=st.integers(1, 8),
    num_items=st.integers(1, 20),
    density=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_entries_are_found_and_no_others(num_users, num_items, density, seed):
    matrix, dense = random_training(num_users, num_items, density, seed)
    rows, columns = (part.ravel() for part in np.indices(dense.shape))
    assert np.array_equal(has_entry(matrix, rows, columns), dense.ravel())
    assert np.array_equal(column_counts(matrix), dense.sum(0))


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_popular_items_are_drawn_in_proportion(power):
    """A user without interactions rejects nothing."""
    _, dense = random_training(200, 6, 0.5, seed=1)
    dense[:, 3] = False
    dense[20:, 2] = False
    dense[0] = False
    sampler = NegativeSampler(csr_of(dense, has_values=False), power=power)
    drawn = sampler.draw(np.zeros(60_000, dtype=np.int64), np.random.default_rng(0))
    expected = dense.sum(0) ** power
    shares = np.bincount(drawn, minlength=6) / len(drawn)
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.006)


def test_own_items_are_rejected_by_popularity_too():
    matrix, dense = random_training(50, 12, 0.6, seed=2)
    users = np.repeat(np.arange(50), 40)
    drawn = NegativeSampler(matrix, power=1).draw(users, np.random.default_rng(0))
    everything = dense.all(axis=1)
    assert not dense[users, drawn][~everything[users]].any()
