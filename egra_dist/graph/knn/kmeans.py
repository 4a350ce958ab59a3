"""Two-level k-means: cells, and lists within each cell.

Training ``c`` centroids flat compares every sample row with all ``c``; on two levels with about
``2 sqrt(c)`` of them. Rows are compared as :mod:`egra_dist.graph.knn.scoring` says: directions for
cosine and inner product (spherical k-means: Dhillon and Modha, 2001), distances for L2.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.graph.knn.scoring import as_base, as_queries
from egra_dist.graph.knn.settings import Metric

SAMPLE_PER_LIST = 64
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


def train_centroids(
    rows: NDArray[np.float32], num_lists: int, metric: Metric, seed: int
) -> Centroids:
    """Trains on a sample of the rows.

    Args:
        rows: ``[num_rows, dim]`` prepared rows.
        num_lists: Lists wanted; about as many are made.
        metric: Similarity.
        seed: Decides the sample and the first centroids.
    """
    generator = np.random.default_rng(seed)
    size = min(len(rows), SAMPLE_PER_LIST * num_lists)
    chosen = np.sort(generator.choice(len(rows), size, replace=False))
    sample = directions(torch.from_numpy(np.ascontiguousarray(rows[chosen])), metric)
    cells, cell_of_row = _kmeans(sample, max(1, round(num_lists**0.5)), metric, generator)
    lists = []
    for cell in range(len(cells)):
        members = sample[cell_of_row == cell]
        wanted = max(1, round(len(members) * num_lists / len(sample)))
        own = _kmeans(members, wanted, metric, generator)[0] if len(members) else cells[[cell]]
        lists.append(own)
    sizes = torch.tensor([0, *(len(part) for part in lists)])
    return Centroids(cells, torch.cat(lists), sizes.cumsum(0))


def _kmeans(
    rows: Tensor, num_centroids: int, metric: Metric, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Centroids and the nearest one of each row; centroids of very few rows are dropped."""
    num_centroids = min(num_centroids, len(rows))
    start = generator.choice(len(rows), num_centroids, replace=False)
    centroids = rows[torch.from_numpy(start)]
    for _ in range(_ITERATIONS):
        nearest = nearest_centroid(rows, centroids, metric)
        sizes = torch.bincount(nearest, minlength=len(centroids))
        sums = torch.zeros_like(centroids).index_add_(0, nearest, rows)
        kept = sizes > _SMALLEST_SHARE * len(rows) / num_centroids
        centroids = sums[kept] / sizes[kept, None]
        if metric != "l2":
            centroids = torch.nn.functional.normalize(centroids)
    return centroids, nearest_centroid(rows, centroids, metric)


def nearest_centroid(rows: Tensor, centroids: Tensor, metric: Metric) -> Tensor:
    """Number of the nearest centroid of each row: ``int64 [num_rows]``."""
    base = as_base(centroids, metric).T.contiguous()
    blocks = [(as_queries(part, metric) @ base).argmax(1) for part in rows.split(_BLOCK_ROWS)]
    return torch.cat(blocks) if blocks else torch.empty(0, dtype=torch.int64)
