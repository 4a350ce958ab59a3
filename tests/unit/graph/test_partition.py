import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import NodePartition, RowPartition, take_rows


@given(st.integers(0, 50), st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_blocks_cover_every_row_once(num_rows, num_ranks):
    partition = RowPartition.even(num_rows, num_ranks)
    owners = partition.owner_of(np.arange(num_rows))
    covered = [row for rank in range(num_ranks) for row in range(num_rows)[partition.block(rank)]]
    assert covered == list(range(num_rows))
    assert all(row in range(num_rows)[partition.block(owner)] for row, owner in enumerate(owners))
    assert sum(partition.size(rank) for rank in range(num_ranks)) == num_rows


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_positions_put_each_ranks_users_before_its_items(num_users, num_items, num_ranks):
    nodes = NodePartition(
        RowPartition.even(num_users, num_ranks), RowPartition.even(num_items, num_ranks)
    )
    expected = np.concatenate(
        [
            np.arange(num_users + num_items)[block]
            for r in range(num_ranks)
            for block in nodes.own_nodes(r)
        ]
    )
    positions = nodes.position_of_nodes(np.arange(num_users + num_items))
    assert np.array_equal(expected[positions], np.arange(num_users + num_items))
    assert np.array_equal(nodes.nodes_at(positions), np.arange(num_users + num_items))
    assert np.array_equal(nodes.position_of_users(np.arange(num_users)), positions[:num_users])
    assert np.array_equal(nodes.position_of_items(np.arange(num_items)), positions[num_users:])


@pytest.mark.parametrize("has_values", [True, False])
def test_taken_rows_are_those_of_the_matrix(has_values):
    dense = (np.arange(24).reshape(6, 4) % 3 == 0).astype(np.float32)
    rows, columns = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=6))]).astype(np.int64)
    values = np.arange(len(rows), dtype=np.float32) if has_values else None
    matrix = Csr(indptr, columns.astype(np.int32), values, 4)
    taken = take_rows(matrix, [slice(1, 3), slice(4, 4), slice(5, 6)])
    assert taken.num_rows == 3
    for new, old in enumerate((1, 2, 5)):
        entries, expected = (
            slice(m.indptr[i], m.indptr[i + 1]) for m, i in ((taken, new), (matrix, old))
        )
        assert np.array_equal(taken.indices[entries], matrix.indices[expected])
        if has_values:
            assert np.array_equal(taken.values[entries], matrix.values[expected])
