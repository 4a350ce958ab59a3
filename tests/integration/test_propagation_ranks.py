"""Exact propagation over 1 to 4 ranks is the dense product in float64; so is its gradient."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ranks import run_on_ranks

from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import NodePartition, RowPartition, take_rows
from egra_dist.model.propagation import PartitionedMatrix, mean_of_layers

DIM, NUM_LAYERS, NUM_GRAPHS = 5, 3, 24


def random_graph(number):
    """Like a merged graph, not symmetric, with isolated nodes; some have fewer nodes than ranks."""
    random = np.random.default_rng(number)
    num_users, num_items = random.integers(1, 14, 2)
    size = num_users + num_items
    dense = random.random((size, size)) * (random.random((size, size)) < random.random())
    for isolated in random.integers(0, size, number % 4):
        dense[isolated] = dense[:, isolated] = 0
    rows, columns = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=size))]).astype(np.int64)
    values = dense[rows, columns].astype(np.float32)
    return num_users, num_items, Csr(indptr, columns.astype(np.int32), values, size), dense


def propagate_on_rank():
    """Of each graph this rank's rows, their propagation, its gradient, and halo rows."""
    return [propagate(number) for number in range(NUM_GRAPHS)]


def propagate(number):
    num_users, num_items, matrix, _ = random_graph(number)
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    nodes = NodePartition(
        RowPartition.even(num_users, num_ranks), RowPartition.even(num_items, num_ranks)
    )
    own = take_rows(matrix, nodes.own_nodes(rank))
    positions = nodes.position_of_nodes(own.indices).astype(np.int32)
    graph = PartitionedMatrix(
        Csr(own.indptr, positions, own.values, own.num_columns),
        nodes.positions,
        torch.device("cpu"),
    )
    embeddings, weights = inputs(number, num_users + num_items)
    mine = np.concatenate([np.arange(len(embeddings))[block] for block in nodes.own_nodes(rank)])
    x = embeddings[mine].requires_grad_()
    result = mean_of_layers(graph, x, NUM_LAYERS)
    (result * weights[mine]).sum().backward()
    return mine, result.detach().numpy(), x.grad.numpy(), graph.num_halo_rows


def inputs(number, size):
    torch.manual_seed(number)
    return torch.randn(size, DIM), torch.randn(size, DIM)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
def test_propagation_on_ranks_is_the_dense_one_in_float64(num_ranks):
    results = run_on_ranks(propagate_on_rank, num_ranks)
    for number in range(NUM_GRAPHS):
        dense = random_graph(number)[-1]
        embeddings, weights = (part.double().numpy() for part in inputs(number, len(dense)))
        mean = np.mean([np.linalg.matrix_power(dense, n) for n in range(NUM_LAYERS + 1)], axis=0)
        for mine, result, gradient, num_halo_rows in (of_rank[number] for of_rank in results):
            np.testing.assert_allclose(result, (mean @ embeddings)[mine], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(gradient, (mean.T @ weights)[mine], rtol=1e-4, atol=1e-4)
            needed = dense[mine].any(0)
            needed[mine] = False
            assert num_halo_rows == needed.sum()
