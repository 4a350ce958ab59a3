"""Exact propagation over 1 to 4 ranks is the dense product in float64; so is its gradient."""

import itertools
import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ranks import run_on_ranks

from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import NodePartition, RowPartition, take_rows
from egra_dist.model.blackboard import Blackboard
from egra_dist.model.propagation import PartitionedMatrix, mean_of_layers
from egra_dist.model.segment import opened
from egra_dist.model.selected import Selection

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


def propagate_on_rank(is_one_machine):
    """Of each graph this rank's rows, their propagation, its gradient, and halo rows."""
    if not is_one_machine:
        os.environ["LOCAL_WORLD_SIZE"] = "0"
    whole = [propagate(number) for number in range(NUM_GRAPHS)]
    assert bool(opened(Blackboard, torch.device("cpu"))) == is_one_machine
    return (
        whole,
        [propagate(number, some_of) for number in range(NUM_GRAPHS)],
        [beside(number) for number in range(NUM_GRAPHS)],
    )


def some_of(number, size):
    """Positions that all ranks ask for."""
    chosen = np.random.default_rng(1000 + number).random(size) < 0.4
    return np.flatnonzero(chosen)


def graph_on_rank(number):
    """This rank's rows, which nodes they are, and who owns which."""
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
    every = np.arange(num_users + num_items)
    return graph, np.concatenate([every[block] for block in nodes.own_nodes(rank)]), nodes


def beside(number):
    """Chosen rows of two products, and own rows of what is multiplied; and gradients."""
    graph, mine, nodes = graph_on_rank(number)
    matrices = inputs(number, random_graph(number)[2].num_rows)
    wanted = Selection(torch.from_numpy(some_of(number, len(matrices[0]))), nodes.positions)
    plain = torch.arange(0, len(mine), 2)
    own = [matrix[mine].requires_grad_() for matrix in matrices]
    result = graph.at(wanted, plain).beside(own)
    weights = weights_beside(len(matrices[0]))
    asked = mine[wanted.own.numpy()]
    (result * torch.cat([weights[0][asked], weights[1][mine[plain.numpy()]]])).sum().backward()
    return {
        "mine": mine,
        "asked": asked,
        "plain": mine[plain.numpy()],
        "result": result.detach().numpy(),
        "gradient": torch.cat([x.grad for x in own], dim=1).numpy(),
    }


def weights_beside(size):
    """Of rows of products, and of rows that come along."""
    return torch.randn(2, size, 2 * DIM, generator=torch.Generator().manual_seed(0))


def propagate(number, choose=None):
    graph, mine, nodes = graph_on_rank(number)
    embeddings, weights = inputs(number, random_graph(number)[2].num_rows)
    x = embeddings[mine].requires_grad_()
    wanted = None
    if choose is not None:
        wanted = Selection(torch.from_numpy(choose(number, len(embeddings))), nodes.positions)
    result = mean_of_layers(graph, x, NUM_LAYERS, wanted)
    own = slice(None) if wanted is None else wanted.own.numpy()
    (result * weights[mine][own]).sum().backward()
    return {
        "mine": mine,
        "asked": mine[own],
        "result": result.detach().numpy(),
        "gradient": x.grad.numpy(),
        "num_halo_rows": graph.num_halo_rows,
    }


def inputs(number, size):
    torch.manual_seed(number)
    return torch.randn(size, DIM), torch.randn(size, DIM)


@pytest.mark.parametrize(
    ("num_ranks", "is_one_machine"), [(1, False), *itertools.product([2, 3, 4], [True, False])]
)
def test_propagation_on_ranks_is_the_dense_one_in_float64(num_ranks, is_one_machine):
    results = run_on_ranks(propagate_on_rank, num_ranks, is_one_machine)
    for number in range(NUM_GRAPHS):
        dense = random_graph(number)[-1]
        embeddings, weights = (part.double().numpy() for part in inputs(number, len(dense)))
        mean = np.mean([np.linalg.matrix_power(dense, n) for n in range(NUM_LAYERS + 1)], axis=0)
        for is_some in (False, True):
            found = [of_rank[is_some][number] for of_rank in results]
            asked = np.concatenate([one["asked"] for one in found])
            for one in found:
                close(one["result"], (mean @ embeddings)[one["asked"]])
                close(one["gradient"], (mean[asked].T @ weights[asked])[one["mine"]])
                needed = dense[one["mine"]].any(0)
                needed[one["mine"]] = False
                assert one["num_halo_rows"] == needed.sum()
        assert_beside([of_rank[2][number] for of_rank in results], number)


def assert_beside(found, number):
    dense = random_graph(number)[-1]
    embeddings = np.concatenate(inputs(number, len(dense)), axis=1).astype(float)
    of_rows, of_plain = weights_beside(len(dense)).double().numpy()
    asked, plain = (np.concatenate([one[name] for one in found]) for name in ("asked", "plain"))
    gradient = dense[asked].T @ of_rows[asked]
    gradient[plain] += of_plain[plain]
    for one in found:
        rows = np.concatenate([(dense @ embeddings)[one["asked"]], embeddings[one["plain"]]])
        close(one["result"], rows)
        close(one["gradient"], gradient[one["mine"]])


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
