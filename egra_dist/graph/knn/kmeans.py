"""Two-level k-means: cells, and lists within each cell.

Training ``c`` centroids flat compares every sample row with all ``c``; on two levels with about
``2 sqrt(c)`` of them, and the lists of each cell are trained by a task of their own. Rows are
compared as :mod:`egra_dist.graph.knn.scoring` says: directions for cosine and inner product
(spherical k-means: Dhillon and Modha, 2001), distances for L2.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.graph.knn.bisection import bisection_order
from egra_dist.graph.knn.scoring import as_base, as_queries
from egra_dist.graph.knn.settings import Metric
from egra_dist.graph.knn.tasks import RowsTask

SAMPLE_FILE = "kmeans_sample.npy"
SAMPLE_PER_LIST = 40
SAMPLE_PER_CELL = 4096
_ITERATIONS = 8
_SMALLEST_SHARE = 0.15
_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class Centroids:
    """Centroids on two levels.

    Attributes:
        cells: ``float32 [num_cells, dim]``.
        lists: ``float32 [num_lists, dim]``, those of a cell next to each other.
        offsets: ``int64 [num_cells + 1]`` where each cell's lists start.
    """

    cells: Tensor
    lists: Tensor
    offsets: Tensor

    def save(self, path: Path) -> None:
        """Writes one ``.npz`` file."""
        np.savez(path, cells=self.cells, lists=self.lists, offsets=self.offsets)

    @classmethod
    def load(cls, path: Path) -> "Centroids":
        """Reads what :meth:`save` wrote."""
        with np.load(path) as arrays:
            return cls(*(torch.from_numpy(arrays[name]) for name in ("cells", "lists", "offsets")))


def directions(rows: Tensor, metric: Metric) -> Tensor:
    """Rows as k-means sees them: of unit length unless distances are compared."""
    return torch.nn.functional.normalize(rows) if metric == "inner_product" else rows


def train_cells(
    rows: NDArray[np.float32], num_lists: int, metric: Metric, seed: int, folder: Path
) -> tuple[Tensor, list["CellTask"]]:
    """Trains the upper level, and leaves the sample of each cell for the lower one.

    Args:
        rows: ``[num_rows, dim]`` prepared rows.
        num_lists: Lists wanted; about as many are made.
        metric: Similarity.
        seed: Decides the sample and the first centroids.
        folder: Where the tasks run.

    Returns:
        ``float32 [num_cells, dim]`` cells in bisection order, and the tasks that train the lists
        of each.
    """
    generator = np.random.default_rng(seed)
    size = min(len(rows), SAMPLE_PER_LIST * num_lists)
    chosen = np.sort(generator.choice(len(rows), size, replace=False))
    sample = directions(torch.from_numpy(np.ascontiguousarray(rows[chosen])), metric)
    num_cells = max(1, round(num_lists**0.5))
    few = generator.choice(size, min(size, SAMPLE_PER_CELL * num_cells), replace=False)
    cells = kmeans(sample[torch.from_numpy(np.sort(few))], num_cells, metric, generator)
    cell_of_row = nearest_centroid(sample, cells, metric)
    cells = cells[bisection_order(cells, cell_of_row.bincount(minlength=len(cells)))]
    cell_of_row = nearest_centroid(sample, cells, metric)
    np.save(folder / SAMPLE_FILE, sample[cell_of_row.argsort(stable=True)])
    sizes = cell_of_row.bincount(minlength=len(cells)).tolist()
    ends = np.cumsum([0, *sizes]).tolist()
    wanted = [max(1, round(cell * num_lists / size)) for cell in sizes]
    tasks = [
        CellTask(first, last, number, seed, metric)
        for (first, last), number in zip(pairwise(ends), wanted, strict=True)
    ]
    return cells, tasks


@dataclass(frozen=True)
class CellTask(RowsTask):
    """Trains the lists of one cell on its range of the sample.

    Attributes:
        num_lists: Lists wanted.
        seed: Decides the first centroids.
        metric: Similarity.
    """

    num_lists: int
    seed: int
    metric: Metric

    def run(self, folder: Path) -> NDArray:
        """Returns ``float32 [num_lists, dim]`` in bisection order; none for an empty cell."""
        sample = np.load(folder / SAMPLE_FILE, mmap_mode="r")
        rows = torch.from_numpy(np.array(sample[self.first : self.last]))
        if not len(rows):
            return rows.numpy()
        generator = np.random.default_rng([self.seed, 3, self.first])
        lists = kmeans(rows, self.num_lists, self.metric, generator)
        sizes = nearest_centroid(rows, lists, self.metric).bincount(minlength=len(lists))
        return lists[bisection_order(lists, sizes)].numpy()


def kmeans(
    rows: Tensor, num_centroids: int, metric: Metric, generator: np.random.Generator
) -> Tensor:
    """Trains centroids on rows ``[num_rows, dim]``, on whichever device they are.

    Returns:
        ``float32 [about num_centroids, dim]``; those of very few rows are dropped.
    """
    num_centroids = min(num_centroids, len(rows))
    start = generator.choice(len(rows), num_centroids, replace=False)
    centroids = rows[torch.from_numpy(start).to(rows.device)]
    for _ in range(_ITERATIONS):
        nearest = nearest_centroid(rows, centroids, metric)
        sizes = torch.bincount(nearest, minlength=len(centroids))
        sums = _sums(rows, nearest, sizes)
        kept = sizes > _SMALLEST_SHARE * len(rows) / num_centroids
        centroids = sums[kept] / sizes[kept, None]
        if metric != "l2":
            centroids = torch.nn.functional.normalize(centroids)
    return centroids


def _sums(rows: Tensor, nearest: Tensor, sizes: Tensor) -> Tensor:
    """Sums of the rows of each centroid, the same in every call: ``[num_centroids, dim]``."""
    if rows.device.type == "cpu":
        return rows.new_zeros(len(sizes), rows.shape[1]).index_add_(0, nearest, rows)
    order, starts = nearest.argsort(stable=True), sizes.cumsum(0) - sizes
    return torch.nn.functional.embedding_bag(order, rows, starts, mode="sum")


def nearest_centroid(rows: Tensor, centroids: Tensor, metric: Metric) -> Tensor:
    """Number of the nearest centroid of each row: ``int64 [num_rows]``."""
    base = as_base(centroids, metric).T.contiguous()
    blocks = [(as_queries(part, metric) @ base).argmax(1) for part in rows.split(_BLOCK_ROWS)]
    return torch.cat(blocks) if blocks else torch.empty(0, dtype=torch.int64)
