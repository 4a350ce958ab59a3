"""Rows on a device, list by list, in whole tiles."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.graph.knn.accelerator.groups import TILE
from egra_dist.graph.knn.layout import Layout
from egra_dist.graph.knn.prepare import PREPARED_FILE
from egra_dist.graph.knn.scoring import as_base, as_queries
from egra_dist.graph.knn.settings import Metric

PLACES_FILE, STARTS_FILE, CENTROIDS_FILE = "places.npy", "starts.npy", "centroids.npy"
_TILES_OF_ONE_LIST = 256
_FLOAT32_ERROR = 2.0**-20


@dataclass(frozen=True)
class Table:
    """Prepared rows in the order of their lists; lists are padded to whole tiles.

    Attributes:
        rows: ``float32 [num_places, dim]``, zeros where there is none.
        ids: ``int64 [num_places]`` prepared row, -1 for none.
        starts: ``[num_lists + 1]`` first place of each list.
        centroids: ``float32 [num_lists, dim]``.
        metric: Similarity.
    """

    rows: Tensor
    ids: Tensor
    starts: list[int]
    centroids: Tensor
    metric: Metric

    @cached_property
    def base(self) -> Tensor:
        """``float32 [num_places, width]``: products with :meth:`queries` order as the scores do."""
        if self.metric != "l2":
            return self.rows
        halves = as_base(self.rows, "l2")[:, -2:-1]  # -|b|^2 / 2, in two parts as bfloat16 is short
        coarse = halves.bfloat16().float()
        return torch.cat([self.rows, coarse, halves - coarse], 1)

    @cached_property
    def rounded(self) -> Tensor:
        """``bfloat16 [num_places, width]``."""
        return self.base.bfloat16()

    @cached_property
    def norms(self) -> tuple[float, float]:
        """Length of the longest row, and of the longest difference to the row that is rounded."""
        residuals = torch.linalg.vector_norm(self.base - self.rounded.float(), dim=1)
        return float(torch.linalg.vector_norm(self.base, dim=1).amax()), float(residuals.amax())

    def queries(self, rows: Tensor) -> Tensor:
        """Prepared rows as the other side of :attr:`base`."""
        if self.metric != "l2":
            return rows
        return torch.cat([rows, rows.new_ones(len(rows), 2)], 1)

    def as_products(self, scores: Tensor, rows: Tensor) -> Tensor:
        """Scores ``[num_rows]`` of rows ``[num_rows, dim]`` in the unit of the products."""
        return (scores + rows.square().sum(1)) / 2 if self.metric == "l2" else scores

    def errors(self, queries: Tensor, is_rounded: bool) -> Tensor:
        """How far a product of each query may be off: ``[num_queries]``."""
        longest, residual = self.norms
        lengths = torch.linalg.vector_norm(queries, dim=1)
        error = _FLOAT32_ERROR * lengths * longest
        if not is_rounded:
            return error
        moved = torch.linalg.vector_norm(queries - queries.bfloat16().float(), dim=1)
        return error * 8 + moved * longest + (lengths + moved) * residual

    def nearest_lists(self, rows: Tensor, count: int) -> Tensor:
        """Lists whose centroids are nearest: ``int64 [num_rows, count]``."""
        base = as_base(self.centroids, self.metric).T.contiguous()
        step = max(1, 2**28 // base.shape[1])
        parts = [as_queries(part, self.metric) @ base for part in rows.split(step)]
        return torch.cat([part.topk(count, dim=1).indices for part in parts])


def write_layout(folder: Path, lists: NDArray[np.int32], num_lists: int) -> int:
    """Writes which row has which place, given the list of each prepared row.

    Returns:
        Number of places.
    """
    layout = Layout.of(lists, num_lists)
    sizes = np.diff(layout.offsets)
    tile = TILE * (_TILES_OF_ONE_LIST if num_lists == 1 else 1)
    starts = np.concatenate([[0], np.cumsum(-(-sizes // tile) * tile)])
    places = np.full(starts[-1], -1)
    shifts = np.repeat(starts[:-1] - layout.offsets[:-1], sizes)
    places[np.arange(len(lists)) + shifts] = layout.order
    np.save(folder / STARTS_FILE, starts)
    np.save(folder / PLACES_FILE, places)
    return len(places)


@lru_cache(maxsize=1)
def open_table(folder: Path, metric: Metric, device: str) -> Table:
    """The table of a folder on a device, which the tasks of a process share."""
    ids = torch.from_numpy(np.load(folder / PLACES_FILE)).to(device)
    prepared = on_device(folder, device)
    rows = prepared[ids.clamp(min=0)]
    del prepared
    rows[ids < 0] = 0
    starts = np.load(folder / STARTS_FILE).tolist()
    centroids = torch.from_numpy(np.load(folder / CENTROIDS_FILE)).to(device)
    return Table(rows, ids, starts, centroids, metric)


def on_device(folder: Path, device: str, first: int = 0, last: int | None = None) -> Tensor:
    """Prepared rows ``float32 [last - first, dim]`` on a device."""
    rows = np.load(folder / PREPARED_FILE, mmap_mode="c")[first:last]
    return torch.from_numpy(rows).to(device)
