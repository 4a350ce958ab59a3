"""Which lists a row visits: its own, and those with the next nearest centroids.

A row's own list is the nearest among those of its three nearest cells. Of the lists around that
one, some hundred or a fourteenth of all, it visits others: a row in the middle of its list needs
none, one at a border several. Which ones is decided by how much further their centroids are, not
by their number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.graph.knn.kmeans import Centroids, directions
from egra_dist.graph.knn.prepare import PREPARED_FILE
from egra_dist.graph.knn.scoring import as_base, as_queries
from egra_dist.graph.knn.settings import Metric
from egra_dist.graph.knn.tasks import RowsTask

CENTROIDS_FILE = "centroids.npz"
AROUND_FILE = "around.npy"
_SHARE_AROUND, _FEWEST_AROUND, _MOST_AROUND = 14, 256, 4096
_ROWS_AT_ONCE = 256
_ASSIGNED_AT_ONCE = 16_384
_CELLS_PER_ROW = 3


def num_lists_around(num_lists: int) -> int:
    """Lists among which a row finds those that it visits.

    Where many small clusters overlap, the nearest rows of a row are spread over about that share of
    all lists: of 10^7 rows in 29,000 lists, 256 lists around a row's own hold 94 % of its nearest
    rows, 2,000 all.
    """
    return min(num_lists, _MOST_AROUND, max(_FEWEST_AROUND, num_lists // _SHARE_AROUND))


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

    def own_lists(self, rows: Tensor) -> Tensor:
        """The nearest list of each row, among those of its nearest cells.

        Args:
            rows: ``float32 [num_rows, dim]`` prepared rows.

        Returns:
            ``int64 [num_rows]``.
        """
        rows = directions(rows, self.metric)
        best = torch.full((len(rows),), -torch.inf)
        own = torch.zeros(len(rows), dtype=torch.int64)
        queries = as_queries(rows, self.metric)
        base = as_base(self.centroids.lists, self.metric)
        for cells in self._nearest_cells(queries):
            for cell, members in _groups(cells):
                first, last = self.centroids.offsets[cell : cell + 2].tolist()
                found = (queries[members] @ base[first:last].T).max(1)
                is_better = found.values > best[members]
                members = members[is_better]
                best[members] = found.values[is_better]
                own[members] = found.indices[is_better] + first
        return own

    def _nearest_cells(self, queries: Tensor) -> Iterator[Tensor]:
        """The nearest cell of each row, the next, and so on."""
        scores = queries @ as_base(self.centroids.cells, self.metric).T
        for _ in range(min(_CELLS_PER_ROW, scores.shape[1])):
            nearest = scores.argmax(1)
            yield nearest
            scores.scatter_(1, nearest[:, None], -torch.inf)

    def gaps(self, rows: Tensor, own: Tensor) -> Tensor:
        """How much less the lists around a row's own score than that.

        Args:
            rows: ``float32 [num_rows, dim]`` prepared rows.
            own: ``int64 [num_rows]`` list of each.

        Returns:
            ``float32 [num_rows, num_around]``, in the order of ``around``: 0 for the own list,
            less for a list that is nearer than that.
        """
        gaps = torch.empty(len(rows), self.around.shape[1])
        for number, members in _groups(own):
            scores = self.scores(rows[members], number)
            gaps[members] = scores[:, :1] - scores
        return gaps

    def scores(self, rows: Tensor, own: int) -> Tensor:
        """Scores of rows of one list with the centroids around it: ``[num_rows, num_around]``."""
        queries = as_queries(directions(rows, self.metric), self.metric)
        return queries @ as_base(self.centroids.lists[self.around[own]], self.metric).T


@dataclass(frozen=True)
class AroundTask(RowsTask):
    """Finds the lists around each of a range of lists.

    Attributes:
        metric: Similarity.
    """

    metric: Metric

    def run(self, folder: Path) -> NDArray:
        """Returns ``int32 [last - first, num_around]``, itself first, then the nearest."""
        lists = Centroids.load(folder / CENTROIDS_FILE).lists
        base = as_base(lists, self.metric).T
        num_around = num_lists_around(len(lists))
        around = np.empty((self.last - self.first, num_around), np.int32)
        for start in range(self.first, self.last, _ROWS_AT_ONCE):
            own = torch.arange(start, min(start + _ROWS_AT_ONCE, self.last))
            scores = as_queries(lists[own], self.metric) @ base
            scores[torch.arange(len(own)), own] = torch.inf
            around[own - self.first] = scores.topk(num_around, dim=1).indices
        return around


@dataclass(frozen=True)
class AssignTask(RowsTask):
    """Finds the own lists of a range of prepared rows.

    Attributes:
        metric: Similarity.
    """

    metric: Metric

    def run(self, folder: Path) -> NDArray:
        """Returns ``int32 [last - first]``."""
        rows = np.load(folder / PREPARED_FILE, mmap_mode="r")[self.first : self.last]
        router = Router.load(folder, self.metric)
        parts = torch.from_numpy(np.array(rows)).split(_ASSIGNED_AT_ONCE)
        return torch.cat([router.own_lists(part) for part in parts]).int().numpy()


def _groups(labels: Tensor) -> list[tuple[int, Tensor]]:
    """The rows of each label that occurs."""
    order = torch.argsort(labels, stable=True)
    values, sizes = torch.unique_consecutive(labels[order], return_counts=True)
    return list(zip(values.tolist(), order.split(sizes.tolist()), strict=True))
