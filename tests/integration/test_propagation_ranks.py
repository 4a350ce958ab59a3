"""Exact propagation over 1 to 4 ranks is the dense product in float64; so is its gradient."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ranks import run_on_ranks

from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import NodePartition, RowPartition, take_rows
from egra_dist.model.propagation import PartitionedMatrix, mean_of_layers

NUM_USERS, NUM_ITEMS, DIM, NUM_LAYERS = 11, 8, 5, 3


def random_graph():
    """Merged-graph-like matrix, not symmetric, with an isolated user and an isolated item."""
    random = np.random.default_rng(0)
    size = NUM_USERS + NUM_ITEMS
    dense = random.random((size, size)) * (random.random((size, size)) < 0.3)
    for isolated in (2, NUM_USERS + 3):
        dense[isolated] = dense[:, isolated] = 0
    rows, columns = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=size))]).astype(np.int64)
    values = dense[rows, columns].astype(np.float32)
    return Csr(indptr, columns.astype(np.int32), values, size), dense


def propagate_on_rank():
    """This rank's rows of the propagation, its gradient, and how many halo rows it has."""
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    nodes = NodePartition(
        RowPartition.even(NUM_USERS, num_ranks), RowPartition.even(NUM_ITEMS, num_ranks)
    )
    matrix, _ = random_graph()
    own = take_rows(matrix, nodes.own_nodes(rank))
    positions = nodes.position_of_nodes(own.indices).astype(np.int32)
    graph = PartitionedMatrix(
        Csr(own.indptr, positions, own.values, own.num_columns),
        nodes.positions,
        torch.device("cpu"),
    )
    embeddings, weights = inputs()
    mine = np.concatenate([np.arange(len(embeddings))[block] for block in nodes.own_nodes(rank)])
    x = embeddings[mine].requires_grad_()
    result = mean_of_layers(graph, x, NUM_LAYERS)
    (result * weights[mine]).sum().backward()
    return mine, result.detach().numpy(), x.grad.numpy(), graph.num_halo_rows


def inputs():
    torch.manual_seed(0)
    shape = (NUM_USERS + NUM_ITEMS, DIM)
    return torch.randn(shape), torch.randn(shape)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
def test_propagation_on_ranks_is_the_dense_one_in_float64(num_ranks):
    _, dense = random_graph()
    embeddings, weights = (tensor.double().numpy() for tensor in inputs())
    powers = [np.linalg.matrix_power(dense, layer) for layer in range(NUM_LAYERS + 1)]
    mean = np.mean(powers, axis=0)
    for mine, result, gradient, num_halo_rows in run_on_ranks(propagate_on_rank, num_ranks):
        np.testing.assert_allclose(result, (mean @ embeddings)[mine], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradient, (mean.T @ weights)[mine], rtol=1e-4, atol=1e-5)
        assert (num_halo_rows > 0) == (num_ranks > 1)
