"""Which lists a row visits: its own, and those with the next nearest centroids.

A row descends to the nearest list of its nearest cell, then compares the lists whose centroids
are nearest to that one: a hundred centroids or so, however many lists there are. The nearest of
them is its own list. A row in the middle of its list needs no other, one at a border several:
which others it visits is decided by how much further their centroids are, not by their number.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.graph.knn.kmeans import Centroids, directions, nearest_centroid
from egra_dist.graph.knn.prepare import PREPARED_FILE
from egra_dist.graph.knn.scoring import as_base, as_queries
from egra_dist.graph.knn.settings import Metric
from egra_dist.graph.knn.tasks import RowsTask

CENTROIDS_FILE = "centroids.npz"
AROUND_FILE = "around.npy"
_ROWS_AT_ONCE = 256
VISIT = np.dtype([("row", np.int32), ("list", np.int32)])
"""A prepared row, and a list that it visits."""


@dataclass(frozen=True)
class Reach:
    """Which lists a row visits beside its own.

    Attributes:
        margin: Those whose centroid scores at most this much less than that of its own.
        max_probes: At most this many, its own included.
    """

    margin: float
    max_probes: int


@dataclass(frozen=True)
class Router:
    """Centroids, and for each list the lists around it.

    Attributes:
        centroids: The two levels.
        around: ``int64 [num_lists, num_around]`` nearest lists of each list, itself among them.
        metric: Similarity.
    """

    centroids: Centroids
    around: Tensor
    metric: Metric

    @classmethod
    def load(cls, folder: Path, metric: Metric) -> "Router":
        """Reads the centroids, and what :class:`AroundTask` found for each list."""
        around = torch.from_numpy(np.load(folder / AROUND_FILE)).long()
        return cls(Centroids.load(folder / CENTROIDS_FILE), around, metric)

    def route(self, rows: Tensor, num_probes: int) -> tuple[Tensor, Tensor]:
        """The nearest lists of each row.

        Args:
            rows: ``float32 [num_rows, dim]`` prepared rows.
            num_probes: Lists per row, at most as many as there are around a list.

        Returns:
            ``int64 [num_rows, num_probes]`` lists, nearest first: the first is the row's own; and
            ``float32`` how much less each scores than the first.
        """
        rows = directions(rows, self.metric)
        entry = self._entry(rows)
        probes = torch.empty(len(rows), min(num_probes, self.around.shape[1]), dtype=torch.int64)
        scores = torch.empty(probes.shape)
        base = as_base(self.centroids.lists, self.metric)
        queries = as_queries(rows, self.metric)
        for number, members in _groups(entry):
            candidates = self.around[number]
            best = (queries[members] @ base[candidates].T).topk(probes.shape[1], dim=1)
            probes[members], scores[members] = candidates[best.indices], best.values
        return probes, scores[:, :1] - scores

    def _entry(self, rows: Tensor) -> Tensor:
        """Nearest list of the nearest cell of each row: ``[num_rows]``."""
        cell_of_row = nearest_centroid(rows, self.centroids.cells, self.metric)
        entry = torch.empty_like(cell_of_row)
        for cell, members in _groups(cell_of_row):
            first, last = int(self.centroids.offsets[cell]), int(self.centroids.offsets[cell + 1])
            lists = self.centroids.lists[first:last]
            entry[members] = nearest_centroid(rows[members], lists, self.metric) + first
        return entry


@dataclass(frozen=True)
class AroundTask(RowsTask):
    """Finds the lists around each of a range of lists.

    Attributes:
        num_around: How many, itself among them.
        metric: Similarity.
    """

    num_around: int
    metric: Metric

    def run(self, folder: Path) -> NDArray:
        """Returns ``int32 [last - first, num_around]``, nearest first."""
        lists = Centroids.load(folder / CENTROIDS_FILE).lists
        base = as_base(lists, self.metric).T
        num_around = min(self.num_around, len(lists))
        around = [
            (as_queries(part, self.metric) @ base).topk(num_around, dim=1).indices
            for part in lists[self.first : self.last].split(_ROWS_AT_ONCE)
        ]
        return torch.cat(around).int().numpy()


@dataclass(frozen=True)
class RouteTask(RowsTask):
    """Routes a range of prepared rows.

    Attributes:
        reach: Which lists a row visits.
        metric: Similarity.
    """

    reach: Reach
    metric: Metric

    def run(self, folder: Path) -> NDArray:
        """Returns ``VISIT`` records: each row's own list, then all that rows visit elsewhere."""
        rows = np.load(folder / PREPARED_FILE, mmap_mode="r")[self.first : self.last]
        router = Router.load(folder, self.metric)
        probes, gaps = router.route(torch.from_numpy(np.array(rows)), self.reach.max_probes)
        own = as_visits(np.arange(self.first, self.last), probes[:, 0].numpy())
        row, place = (gaps[:, 1:] <= self.reach.margin).nonzero(as_tuple=True)
        away = as_visits(row.numpy() + self.first, probes[row, place + 1].numpy())
        return np.concatenate([own, away])


def as_visits(rows: NDArray, lists: NDArray | int) -> NDArray:
    """Rows and lists ``[num_visits]`` as ``VISIT`` records."""
    visits = np.empty(len(rows), VISIT)
    visits["row"], visits["list"] = rows, lists
    return visits


def _groups(labels: Tensor) -> list[tuple[int, Tensor]]:
    """The rows of each label that occurs."""
    order = torch.argsort(labels, stable=True)
    values, sizes = torch.unique_consecutive(labels[order], return_counts=True)
    return list(zip(values.tolist(), order.split(sizes.tolist()), strict=True))
