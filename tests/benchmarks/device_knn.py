"""The item graph on a device, for ``tests.benchmarks.device``."""

import tempfile
import time
from pathlib import Path

import torch

from egra_dist.graph.knn import KnnSettings, build_knn
from egra_dist.graph.knn.accelerator.groups import GROUP, TILE, group_maxima, largest
from egra_dist.graph.knn.accelerator.search import Queries, best_of_groups
from egra_dist.graph.knn.accelerator.table import Table

DIM = 64
K = 10


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
