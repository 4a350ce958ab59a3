"""Sampled rows are the rows themselves on average, and exactly where the fan-out suffices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egra_dist.graph.csr import Csr
from egra_dist.graph.sampler import FanOut, NeighborSampler, combine_keys
from tests.matrices import csr_of

EVERYTHING = FanOut(10**9, 10**9)


def random_matrix(num_users, num_items, density, seed):
    """A merged graph, not symmetric, of any values; some nodes are isolated."""
    random = np.random.default_rng(seed)
    size = num_users + num_items
    dense = random.random((size, size)) * (random.random((size, size)) < density)
    dense[:num_users, :num_users] = 0
    for isolated in random.integers(size, size=2):
        dense[isolated] = dense[:, isolated] = 0
    return csr_of(dense), dense


def as_dense(block, num_columns):
    dense = np.zeros((block.matrix.num_rows, num_columns))
    rows = np.repeat(np.arange(block.matrix.num_rows), np.diff(block.matrix.indptr))
    np.add.at(dense, (rows, block.columns[block.matrix.indices]), block.matrix.values)
    return dense


@settings(max_examples=60, deadline=None)
@given(
    num_users=st.integers(1, 9),
    num_items=st.integers(1, 9),
    density=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_full_fan_out_is_exact(num_users, num_items, density, seed):
    matrix, dense = random_matrix(num_users, num_items, density, seed)
    rows = np.random.default_rng(seed).permutation(len(dense))
    block = NeighborSampler(matrix, num_users).sample(rows, EVERYTHING, key=seed)
    np.testing.assert_allclose(as_dense(block, len(dense)), dense[rows], rtol=1e-6)
    assert np.array_equal(block.columns, np.flatnonzero(dense.any(axis=0)))


@settings(max_examples=60, deadline=None)
@given(
    fan_out=st.builds(FanOut, st.integers(1, 5), st.integers(1, 5)),
    seed=st.integers(0, 2**31),
    key=st.integers(0, 2**64 - 1),
)
def test_no_row_has_more_neighbors_of_a_kind_than_the_fan_out(fan_out, seed, key):
    num_users = 6
    matrix, dense = random_matrix(num_users, 8, 0.7, seed)
    rows = np.arange(len(dense))
    block = NeighborSampler(matrix, num_users).sample(rows, fan_out, key)
    columns = block.columns[block.matrix.indices]
    assert (dense[np.repeat(rows, np.diff(block.matrix.indptr)), columns] > 0).all()
    for row, (start, stop) in enumerate(
        zip(block.matrix.indptr[:-1], block.matrix.indptr[1:], strict=True)
    ):
        of_items = dense[row, num_users:].astype(bool).sum()
        of_users = dense[row, :num_users].astype(bool).sum()
        limit = fan_out.user_item if row < num_users else fan_out.item_item
        found = columns[start:stop]
        assert len(np.unique(found)) == len(found)
        assert (found >= num_users).sum() == min(of_items, limit)
        assert (found < num_users).sum() == min(of_users, fan_out.user_item)


def mean_error(matrix, dense, num_users, fan_out, keys):
    sampler, rows = NeighborSampler(matrix, num_users), np.arange(len(dense))
    total = sum(as_dense(sampler.sample(rows, fan_out, key), len(dense)) for key in keys)
    return np.sqrt(np.mean((total / len(keys) - dense) ** 2))


def test_mean_over_draws_converges_as_one_over_the_root_of_their_number():
    matrix, dense = random_matrix(10, 14, 0.8, seed=4)
    errors = [
        np.mean(
            [
                mean_error(matrix, dense, 10, FanOut(3, 2), range(start, start + count))
                for start in range(0, 2048, 256)
            ]
        )
        for count in (4, 32, 256)
    ]
    slopes = np.diff(np.log(errors)) / np.log(8)
    np.testing.assert_allclose(slopes, -0.5, atol=0.08)
    assert errors[-1] < 0.1 * np.abs(dense).max()


def test_draws_of_a_row_depend_on_the_key_and_on_no_other_row():
    matrix, _ = random_matrix(10, 14, 0.8, seed=4)
    sampler, fan_out = NeighborSampler(matrix, 10), FanOut(2, 3)
    everyone = as_dense(sampler.sample(np.arange(24), fan_out, 5), 24)
    some = np.array([20, 3, 11])
    assert np.array_equal(as_dense(sampler.sample(some, fan_out, 5), 24), everyone[some])
    assert not np.array_equal(as_dense(sampler.sample(some, fan_out, 6), 24), everyone[some])


@pytest.mark.parametrize("num_entries", [0, 3])
def test_no_rows_and_no_entries(num_entries):
    indptr = np.array([0, num_entries, num_entries], dtype=np.int64)
    indices = np.arange(num_entries, dtype=np.int32)
    matrix = Csr(indptr, indices, None, 4)
    sampler = NeighborSampler(matrix, 2)
    empty = sampler.sample(np.array([], dtype=np.int64), FanOut(1, 1), 0)
    assert empty.matrix.num_rows == len(empty.columns) == 0
    block = sampler.sample(np.array([1, 1]), FanOut(1, 1), 0)
    assert block.matrix.num_entries == 0


def test_keys_of_different_numbers_differ():
    keys = {combine_keys(a, b) for a in range(30) for b in range(30)}
    assert len(keys) == 900
    assert combine_keys(3, 4) == combine_keys(3, 4)
