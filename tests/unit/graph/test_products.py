import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egra_dist.graph.products import multiply_rows, row_blocks
from tests.matrices import csr_of


def random_dense(num_rows, seed):
    random = np.random.default_rng(seed)
    return random.random((num_rows, 7)) * (random.random((num_rows, 7)) < random.random())


@settings(max_examples=60, deadline=None)
@given(
    num_rows=st.integers(0, 40),
    start=st.integers(0, 40),
    max_rows=st.integers(1, 10),
    max_entries=st.integers(1, 30),
    seed=st.integers(0, 2**31),
)
def test_blocks_cover_the_rows_and_are_small(num_rows, start, max_rows, max_entries, seed):
    matrix = csr_of(random_dense(num_rows, seed))
    rows = slice(min(start, num_rows), num_rows)
    blocks = list(row_blocks(matrix, rows, max_rows, max_entries))
    covered = [row for block in blocks for row in range(block.start, block.stop)]
    assert covered == list(range(rows.start, rows.stop))
    for block in blocks:
        num_entries = matrix.indptr[block.stop] - matrix.indptr[block.start]
        size = block.stop - block.start
        assert size <= max_rows
        assert num_entries <= max_entries or size == 1


@pytest.mark.parametrize("first_column", [0, 3])
def test_product_of_rows(first_column):
    dense = random_dense(12, 1)
    dense[:, :first_column] = 0
    factor = np.random.default_rng(2).random((7, 5)).astype(np.float32)
    product = multiply_rows(csr_of(dense), slice(2, 9), factor[first_column:], first_column)
    np.testing.assert_allclose(product, dense[2:9] @ factor, rtol=1e-5)
