"""Where the lists of a routed self-join lie on many machines, and what has to travel.

    python -m tests.benchmarks.knn_placement [--rows 100000000] [--workers 32] [--lists-per-row 3 8]

Trains as many lists as that many rows have, with the code of the build, on a sample of clustered
vectors of the same density, routes a part of the sample, and cuts the lists, in their order, into
one range of equal work per worker. A worker receives its own rows and one copy of every other row
that visits one of its lists. Figures of the routed part are scaled to all rows; "hashed" is the
same with the lists dealt out at random. Takes some minutes on one thread.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from egra_dist.graph.knn.kmeans import Centroids, train_cells
from egra_dist.graph.knn.routing import (
    AROUND_FILE,
    CENTROIDS_FILE,
    AroundTask,
    Router,
)
from tests.benchmarks.knn_data import clustered

LIST_SIZE = 3333
SAMPLE_PER_LIST = 32
ROWS_AT_ONCE = 16_384


def train(rows, num_lists, folder):
    """The router of ``num_lists`` lists, as a build leaves it in its folder."""
    cells, tasks = train_cells(rows, num_lists, "cosine", 0, folder)
    lists = [torch.from_numpy(task.run(folder)) for task in tasks]
    offsets = torch.tensor([0, *map(len, lists)]).cumsum(0)
    Centroids(cells, torch.cat(lists), offsets).save(folder / CENTROIDS_FILE)
    around = AroundTask(0, int(offsets[-1]), "cosine").run(folder)
    np.save(folder / AROUND_FILE, around)
    return Router.load(folder, "cosine")


def margin_for(router, rows, lists_per_row):
    """The margin with which rows visit so many lists on average, their own included."""
    rows = torch.from_numpy(rows)
    gaps = router.gaps(rows, router.own_lists(rows))
    return float(gaps.flatten().kthvalue(round(lists_per_row * len(rows))).values)


def routed(router, rows, margin):
    """List of each row, and rows and lists of all visits elsewhere."""
    own, guests, visited = [], [], []
    for first in range(0, len(rows), ROWS_AT_ONCE):
        block = torch.from_numpy(rows[first : first + ROWS_AT_ONCE])
        lists = router.own_lists(block)
        row, place = (router.gaps(block, lists)[:, 1:] <= margin).nonzero(as_tuple=True)
        own.append(lists)
        guests.append(row + first)
        visited.append(router.around[lists[row], place + 1])
    return tuple(torch.cat(parts).numpy() for parts in (own, guests, visited))


def placed(work, num_workers):
    """Worker of each list: ranges of about equal work."""
    middle = np.cumsum(work) - work / 2
    return np.minimum(num_workers * middle / work.sum(), num_workers - 1).astype(int)


def describe(lists, rows, visited, worker_of_list, work, num_workers, scale):
    """One line: what workers do, and what they receive and send."""
    home = worker_of_list[lists]
    visits = np.unique(rows * np.int64(num_workers) + worker_of_list[visited])
    guests, hosts = visits // num_workers, visits % num_workers
    away = home[guests] != hosts
    received = np.bincount(hosts[away], minlength=num_workers) * scale
    sent = np.bincount(home[guests[away]], minlength=num_workers) * scale
    kept = np.bincount(home, minlength=num_workers) * scale
    load = np.bincount(worker_of_list, work, minlength=num_workers)
    per_row = 1 + away.sum() / len(lists)
    columns = [
        f"{per_row:.2f}",
        f"{load.max() / load.mean():.2f}",
        *(f"{part.mean() / 1e6:.2f} / {part.max() / 1e6:.2f}" for part in (kept, received, sent)),
    ]
    return (kept + received), columns


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--lists-per-row", type=float, nargs="+", default=[3.0, 8.0])
    parser.add_argument("--routed-rows", type=int, default=1_000_000)
    options = parser.parse_args()
    num_lists = options.rows // LIST_SIZE
    size = min(options.rows, SAMPLE_PER_LIST * num_lists)
    blocks = clustered(options.rows, options.dim, size=size)
    sample = np.concatenate(list(blocks))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        router = train(sample, num_lists, folder)
        part = np.random.default_rng(2).choice(size, min(size, options.routed_rows), replace=False)
        rows = sample[np.sort(part)]
        scale = options.rows / len(rows)
        table(router, rows, scale, options)


def table(router, rows, scale, options):
    num_lists = len(router.centroids.lists)
    print(f"{options.rows:,} rows, {num_lists:,} lists, {options.workers} workers, million rows")
    print("| lists per row | placed | workers per row | work, most / mean "
          "| rows kept, mean / most | received | sent | GB in, most |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    dealt = np.random.default_rng(3).integers(0, options.workers, num_lists)
    for lists_per_row in options.lists_per_row:
        margin = margin_for(router, rows[:: max(1, len(rows) // 20_000)], lists_per_row)
        lists, guests, visited = routed(router, rows, margin)
        sizes = np.bincount(lists, minlength=num_lists) * scale
        work = sizes * (sizes + np.bincount(visited, minlength=num_lists) * scale)
        for how, workers in (("bisection", placed(work, options.workers)), ("hashed", dealt)):
            rows_in, columns = describe(
                lists, guests, visited, workers, work, options.workers, scale
            )
            gigabytes = rows_in.max() * 4 * options.dim / 1e9
            cells = [f"{lists_per_row:g}", how, *columns, f"{gigabytes:.1f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
