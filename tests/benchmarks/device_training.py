"""What a training and its evaluation do on a device, for ``tests.benchmarks.device``."""

import numpy as np
import torch

from egra_dist.evaluate.entries import EntriesByItem
from egra_dist.evaluate.ranks import rank_by_vectors
from egra_dist.evaluate.tiles import local_tiles
from egra_dist.graph.csr import Csr
from egra_dist.graph.sampler import FanOut, NeighborSampler
from egra_dist.model.losses import info_nce, sampled_softmax
from egra_dist.model.sparse import SparseMatrix

DIM = 64


def random_graph(num_nodes, degree):
    generator = np.random.default_rng(0)
    degrees = generator.poisson(degree, num_nodes)
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    indices = generator.integers(0, num_nodes, indptr[-1]).astype(np.int32)
    values = generator.random(len(indices), dtype=np.float32) / degree
    return Csr(indptr, indices, values, num_nodes)


def propagation(bench):
    num_nodes = bench.size(1_000_000)
    graph = random_graph(num_nodes, 20)
    matrix = SparseMatrix(graph, bench.device)
    dense = torch.randn(num_nodes, DIM, device=bench.device, requires_grad=True)
    sample = np.arange(0, num_nodes, max(1, num_nodes // 500))
    expected = torch.stack([
        torch.from_numpy(graph.values[a:b]).double()
        @ dense.detach().cpu()[graph.indices[a:b].astype(np.int64)].double()
        for a, b in zip(graph.indptr[sample], graph.indptr[sample + 1], strict=True)
    ])  # fmt: skip
    found = (matrix @ dense).detach().cpu()[sample].double()
    assert torch.allclose(found, expected, atol=1e-5), "the product is wrong"
    gradient = torch.randn(num_nodes, DIM, device=bench.device)

    def step():
        (matrix @ dense).backward(gradient)
        dense.grad = None

    num_bytes = 2 * (len(graph.indices) * (4 * DIM + 8) + num_nodes * 4 * DIM)
    size = f"{num_nodes:,} nodes, {len(graph.indices):,} entries, dim {DIM}"
    bench.add("propagation, a layer and its gradient", size, bench.seconds(step), num_bytes)
    plain = torch.sparse_csr_tensor(
        torch.from_numpy(graph.indptr).int(), torch.from_numpy(graph.indices),
        torch.from_numpy(graph.values), (num_nodes, num_nodes),
    ).to(bench.device)  # fmt: skip
    rows = dense.detach()
    bench.add("torch's CSR product, without gradient", size, bench.seconds(lambda: plain @ rows),
              num_bytes / 2)  # fmt: skip
    bench.add("ours, without gradient", size, bench.seconds(lambda: matrix @ rows), num_bytes / 2)


def losses(bench):
    num, others = bench.size(8192), bench.size(32768)
    generator = torch.Generator(bench.device).manual_seed(0)
    anchors, candidates = (
        torch.randn(n, DIM, generator=generator, device=bench.device).requires_grad_()
        for n in (num, others)
    )
    positives = torch.arange(num, device=bench.device)
    cases = {
        "InfoNCE": lambda a, c: info_nce(a, c, positives, 0.2),
        "sampled softmax": lambda a, c: sampled_softmax(a, c, positives, a.new_zeros(len(c)), 1.0),
    }
    for name, loss in cases.items():
        value = loss(anchors, candidates).mean()
        value.backward()
        gradients = anchors.grad, candidates.grad
        anchors.grad = candidates.grad = None
        exact = [rows.detach().cpu()[:].double().requires_grad_() for rows in (anchors, candidates)]
        reference = cases_on_cpu(name, *exact, positives.cpu()).mean()
        reference.backward()
        assert abs(float(value) - float(reference)) < 1e-4 * abs(float(reference)), name
        for own, other in zip(gradients, exact, strict=True):
            error = (own.cpu().double() - other.grad).norm() / other.grad.norm()
            assert error < 1e-3, (name, float(error))

        def step(loss=loss):
            loss(anchors, candidates).mean().backward()
            anchors.grad = candidates.grad = None

        operations = 2 * num * others * DIM * 5
        bench.add(f"{name}, with gradient", f"{num:,} x {others:,}", bench.seconds(step),
                  num_operations=operations)  # fmt: skip


def cases_on_cpu(name, anchors, candidates, positives):
    """The losses by their definitions."""
    if name == "InfoNCE":
        anchors, candidates = map(torch.nn.functional.normalize, (anchors, candidates))
        return torch.nn.functional.cross_entropy(anchors @ candidates.T / 0.2, positives)
    return torch.nn.functional.cross_entropy(anchors @ candidates.T, positives)


def ranking(bench):
    num_users, num_items = bench.size(100_000), bench.size(1_000_000)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(64, DIM, generator=generator)
    kinds = [torch.randint(64, (n,), generator=generator) for n in (num_users, num_items)]
    users, items = (
        (hidden[kind] + torch.randn(len(kind), DIM, generator=generator)).to(bench.device)
        for kind in kinds
    )
    liked = torch.randint(num_items, (num_users,), generator=generator)
    seen = torch.randint(num_items, (10, num_users), generator=generator).T.sort(dim=1).values
    rows = torch.arange(num_users)

    def entries(rows, items):
        keep = torch.ones(len(rows), dtype=torch.bool)
        keep[1:] = (rows[1:] != rows[:-1]) | (items[1:] != items[:-1])
        return EntriesByItem(rows[keep].to(bench.device), items[keep].to(bench.device))

    positives = entries(rows, liked)
    others = entries(rows.repeat_interleave(10), seen.flatten())

    def rank():
        tiles = lambda: local_tiles(items, 32768, bench.device)  # noqa: E731
        return rank_by_vectors(users, tiles, positives, others, 50, 16384)

    ranks = rank().cpu()
    for user in range(0, num_users, max(1, num_users // 50)):
        scores = items.double() @ users[user].double()
        scores[seen[user].to(bench.device)] = -torch.inf
        expected = int((scores > items[liked[user]].double() @ users[user].double()).sum())
        if liked[user] not in seen[user]:
            assert min(expected, 50) == min(int(ranks[user]), 50), user
    seconds = bench.seconds(rank, repeats=2)
    bench.add("full ranking", f"{num_users:,} users x {num_items:,} items", seconds,
              num_operations=2 * num_users * num_items * DIM,
              note=f"{num_users / seconds:,.0f} users/s")  # fmt: skip


def sampler(bench):
    """On the processor: how long a batch takes there, to be hidden behind a step."""
    graph = random_graph(bench.size(1_000_000), 20)
    rows = np.unique(np.random.default_rng(0).integers(0, graph.num_rows, 30_000))
    drawn = NeighborSampler(graph)

    def draw():
        drawn.sample(rows, FanOut(10, 10), 1)

    bench.add("sampler, on the processor", f"{len(rows):,} rows, 10 neighbours each",
              bench.seconds(draw), note="not on the device")  # fmt: skip
