"""What a GPU does with the parts that need only torch, against what it could do.

    python -m tests.benchmarks.device [--device cuda] [--parts knn routed propagation ...]
        [--scale 1] [--json FILE]

The two ceilings are measured first: a large copy (bytes read and written) and large products in
bfloat16 and float32. Every part is checked (against float64, or against the processor) before it
is timed: the median of some calls, everything on the device waited for; "share" is the larger of
its bytes over the copy's rate and its operations over the product's, per second taken. ``--scale``
divides all sizes, for a trial without a GPU.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from egra_dist.evaluate.entries import EntriesByItem
from egra_dist.evaluate.ranks import rank_by_vectors
from egra_dist.evaluate.tiles import local_tiles
from egra_dist.graph.csr import Csr
from egra_dist.graph.knn import KnnSettings, Workers, build_knn
from egra_dist.graph.knn.accelerator.groups import GROUP, TILE, group_maxima, largest
from egra_dist.graph.knn.accelerator.search import Queries, best_of_groups
from egra_dist.graph.knn.accelerator.table import Table
from egra_dist.graph.sampler import FanOut, NeighborSampler
from egra_dist.model.losses import info_nce, sampled_softmax
from egra_dist.model.sparse import SparseMatrix

DIM = 64
K = 10


class Bench:
    """A device, its ceilings, and the rows of the table."""

    def __init__(self, device, scale):
        self.device, self.scale, self.rows = torch.device(device), scale, []
        self.workers = Workers(1, device=device)
        self.bytes_per_second = self.ceiling_of_copies()
        self.bfloat16 = self.ceiling_of_products(torch.bfloat16)
        self.float32 = self.ceiling_of_products(torch.float32)

    def size(self, number):
        return max(1024, int(number / self.scale))

    def seconds(self, call, repeats=7):
        """Median of some calls, after one that compiles."""
        call()
        taken = []
        for _ in range(repeats):
            self.wait()
            started = time.perf_counter()
            call()
            self.wait()
            taken.append(time.perf_counter() - started)
        return statistics.median(taken)

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def ceiling_of_copies(self):
        source = torch.randn(self.size(2**29), device=self.device)
        target = torch.empty_like(source)
        return 8 * len(source) / self.seconds(lambda: target.copy_(source))

    def ceiling_of_products(self, dtype):
        side = 8192 if self.scale == 1 else 1024
        one, other = (torch.randn(side, side, device=self.device, dtype=dtype) for _ in range(2))
        return 2 * side**3 / self.seconds(lambda: one @ other)

    def add(self, part, size, seconds, num_bytes=0, num_operations=0, rate=None, note=""):
        floors = num_bytes / self.bytes_per_second, num_operations / (rate or self.float32)
        row = {
            "part": part, "size": size, "seconds": seconds, "bytes": num_bytes,
            "operations": num_operations, "share": max(floors) / seconds,
            "bound": "bytes" if floors[0] > floors[1] else "operations", "note": note,
        }  # fmt: skip
        self.rows.append(row)
        print(json.dumps(row), flush=True)


def clustered(num_rows, device):
    """As ``knn_data.clustered``, made on the device."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, device=device)

    def draw(weights, count):
        bounds = weights.double().cumsum(0)
        drawn = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
        return torch.searchsorted(bounds, drawn * bounds[-1]).clamp(max=len(weights) - 1)

    num_top, num_sub = max(8, int(num_rows**0.5 / 8)), max(64, num_rows // 60)
    weights = 1 / torch.arange(1, num_top + 1, device=device) ** 0.8
    sub = normal(num_top, DIM)[draw(weights, num_sub)] + 0.6 * normal(num_sub, DIM)
    rows = sub[draw(normal(num_sub).exp(), num_rows)] + 0.7 * normal(num_rows, DIM)
    return torch.nn.functional.normalize(rows)


def recall(rows, neighbors, num_sampled=1000):
    """Recall@10 by scores in float64 of some rows against all."""
    sample = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))[:num_sampled]
    found = []
    for part in sample.split(50):
        scores = rows[part.to(rows.device)].double() @ rows.double().T
        scores[torch.arange(len(part)), part] = -torch.inf
        last = scores.topk(K, dim=1).values[:, -1:] - 1e-6
        own = torch.from_numpy(neighbors[part.numpy()]).long().to(rows.device)
        found.append(((own >= 0) & (scores.gather(1, own.clamp(min=0)) >= last)).sum(1) / K)
    return float(torch.cat(found).float().mean())


def knn(bench, method="exact", num_rows=1_000_000, target=0.98):
    num_rows = bench.size(num_rows)
    rows = clustered(num_rows, bench.device)
    vectors = rows.cpu().numpy()
    for first in ("exact", "routed"):  # compiles
        build_knn(vectors[:20_000], KnnSettings(k=K, method=first), workers=bench.workers)
    settings = KnnSettings(k=K, method=method, recall=target)
    stages, started = {}, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        progress = Stages(stages)
        graph = build_knn(
            vectors, settings, workdir=Path(folder), workers=bench.workers, progress=progress
        )
    total = time.perf_counter() - started
    progress.end()
    facts = graph.statistics
    pairs = num_rows**2
    if method == "routed":
        pairs = num_rows**2 * facts["lists_per_row"] / facts["num_lists"]
    seconds = stages.get(method, total)
    found = recall(rows[: len(rows)], graph.neighbors)
    shown = {name: round(value, 2) for name, value in stages.items()}
    note = f"recall {found:.4f}; all of build_knn {total:.1f} s: {shown}; {facts['reason']}"
    bench.add(f"kNN, {method}", f"{num_rows:,} rows", seconds,
              num_operations=2 * pairs * DIM, rate=bench.bfloat16, note=note)  # fmt: skip


def tiles(bench):
    """The parts of a block of the exact search."""
    num_rows, num_queries, num_groups = bench.size(2**20) // TILE * TILE, bench.size(16384), K + 6
    rows = clustered(num_rows, bench.device)
    base, queries = rows.bfloat16(), rows[:num_queries].bfloat16()
    size = f"{num_queries:,} x {num_rows:,}"
    operations = 2 * num_queries * num_rows * DIM
    maxima = group_maxima(queries, base)
    expected = group_maxima(queries[:100].double(), base.double()).float()
    assert torch.allclose(maxima[:100], expected, atol=1e-4), "the maxima are wrong"
    seconds = bench.seconds(lambda: group_maxima(queries, base))
    num_bytes = 4 * maxima.numel()
    bench.add("kNN: products and maxima", size, seconds, num_bytes, operations, bench.bfloat16)
    groups = largest(maxima, num_groups)[1]
    seconds = bench.seconds(lambda: largest(maxima, num_groups))
    bench.add("kNN: largest groups", size, seconds, num_bytes)
    ids = torch.arange(num_rows, device=bench.device)
    table = Table(rows, ids, [0, num_rows], rows[:1], "cosine")
    wanted = Queries(rows[:num_queries], ids[:num_queries])
    seconds = bench.seconds(lambda: best_of_groups(table, wanted, groups, K))
    num_bytes = num_queries * num_groups * GROUP * DIM * 4
    bench.add("kNN: scores in float32", size, seconds, num_bytes)


class Stages:
    """Wall seconds of each stage of a build, from its progress."""

    def __init__(self, seconds):
        self.seconds, self.name, self.since = seconds, "prepare", time.perf_counter()

    def update(self, done, part="", **_):
        now = time.perf_counter()
        name = part if part == self.name else f"before {part}"
        self.seconds[name] = self.seconds.get(name, 0) + now - self.since
        self.name, self.since = part, now

    def end(self):
        self.seconds["assemble"] = time.perf_counter() - self.since


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


PARTS = {
    "propagation": propagation,
    "losses": losses,
    "ranking": ranking,
    "sampler": sampler,
    "tiles": tiles,
    "knn": knn,
    "knn100k": lambda bench: knn(bench, num_rows=100_000),
    "routed1m": lambda bench: knn(bench, "routed"),
    "knn10m": lambda bench: knn(bench, num_rows=10_000_000),
    "routed": lambda bench: knn(bench, "routed", 10_000_000),
    "routed95": lambda bench: knn(bench, "routed", 10_000_000, 0.95),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    bench = Bench(options.device, options.scale)
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else "processor"
    ceilings = {
        "copy TB/s": bench.bytes_per_second / 1e12,
        "bfloat16 TFLOP/s": bench.bfloat16 / 1e12,
        "float32 TFLOP/s": bench.float32 / 1e12,
    }
    print(json.dumps({"device": name, "torch": torch.__version__, **ceilings}), flush=True)
    failed = []
    for part in options.parts:
        try:
            PARTS[part](bench)
        except Exception as error:  # a part that fails does not cost the others
            print(f"{part} failed: {type(error).__name__}: {error}", flush=True)
            failed.append(part)
        if options.json:
            options.json.write_text(json.dumps({"device": name, **ceilings, "rows": bench.rows}))
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
