"""Who visits which list: found range by range of rows, read list by list.

Visits are made in two rounds. What a row finds in the few lists nearest to its own gives it a bound
so close to its true k-th score that little of what it meets in all others passes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.graph.knn.edges import range_of
from egra_dist.graph.knn.layout import ROWS_FILE, Layout
from egra_dist.graph.knn.routing import Reach, Router
from egra_dist.graph.knn.settings import Metric
from egra_dist.graph.knn.tasks import RowsTask

STAGE = "route"
ROUNDS = ("near", "far")
_NEAR_LISTS = 3
_ROWS_AT_ONCE = 16_384
_LIST_BITS = np.int64(32)
VISIT = np.dtype([("row", np.int32), ("list", np.int32)])
"""A position, and a list that its row visits, plus ``num_lists`` in the second round."""


@dataclass(frozen=True)
class RouteTask(RowsTask):
    """Finds the lists that the rows in a range of positions visit beside their own.

    Attributes:
        reach: Which lists a row visits.
        metric: Similarity.
    """

    reach: Reach
    metric: Metric

    def run(self, folder: Path) -> NDArray:
        """Returns ``VISIT`` records, ascending by list and then by row."""
        layout = Layout.load(folder)
        router = Router.load(folder, self.metric)
        rows = np.load(folder / ROWS_FILE, mmap_mode="r")
        num_routed = len(router.centroids.lists)
        starts, found = layout.offsets, []
        first_list = int(np.searchsorted(starts, self.first, side="right")) - 1
        for number in range(first_list, layout.num_lists):
            first, last = max(self.first, starts[number]), min(self.last, starts[number + 1])
            if first >= self.last or number >= num_routed:
                break
            for start in range(first, last, _ROWS_AT_ONCE):
                part = np.array(rows[start : min(last, start + _ROWS_AT_ONCE)])
                row, place, is_far = self._visits(router.scores(torch.from_numpy(part), number))
                lists = router.around[number].numpy()[place] + is_far * layout.num_lists
                found.append((lists.astype(np.int64) << _LIST_BITS) | (row + start))
        if layout.num_lists > num_routed:  # the head, which all others visit
            others = np.arange(self.first, min(self.last, starts[num_routed]))
            found.append((np.int64(num_routed) << _LIST_BITS) | others)
        return _as_visits(np.concatenate([np.empty(0, np.int64), *found]))

    def _visits(self, scores: Tensor) -> tuple[NDArray, NDArray, NDArray]:
        """Row, place in ``around`` and round of each visit.

        Args:
            scores: ``[num_rows, num_around]`` with the centroids, that of the own list first.
        """
        visits = (scores >= scores[:, :1] - self.reach.margin).numpy()
        visits[:, 0] = False  # its own list
        most = self.reach.max_probes - 1
        many = np.flatnonzero(np.count_nonzero(visits, axis=1) > most)
        if len(many):
            visits[many] &= _is_among_largest(scores[many, 1:], most)
        row, place = np.divmod(np.flatnonzero(visits), visits.shape[1])
        near = _is_near(row, (scores[:, 0].numpy()[row] - scores.numpy()[row, place]))
        return row, place, ~near


def _is_among_largest(scores: Tensor, count: int) -> NDArray[np.bool_]:
    """Which of the lists around, the own one first, are among the ``count`` of most score."""
    is_among = np.zeros((len(scores), scores.shape[1] + 1), bool)
    if count > 0:
        last = scores.topk(min(count, scores.shape[1]), dim=1).values[:, -1:]
        is_among[:, 1:] = (scores >= last).numpy()
    return is_among


def _is_near(row: NDArray, gap: NDArray) -> NDArray[np.bool_]:
    """Which visits, ascending by row, are among the few of the least gaps of their row."""
    near = np.zeros(len(row), bool)
    if not len(row):
        return near
    is_first = np.append(True, row[1:] != row[:-1])
    starts, numbers = np.flatnonzero(is_first), np.cumsum(is_first) - 1
    for _ in range(_NEAR_LISTS):
        near |= gap == np.minimum.reduceat(gap, starts)[numbers]
        gap = np.where(near, np.inf, gap)
    return near


def _as_visits(keys: NDArray[np.int64]) -> NDArray:
    keys.sort()
    visits = np.empty(len(keys), VISIT)
    visits["row"], visits["list"] = keys & ((1 << _LIST_BITS) - 1), keys >> _LIST_BITS
    return visits


def count_visits(folder: Path, num_lists: int) -> NDArray[np.int64]:
    """Rows that visit each list, by round: ``[num_rounds, num_lists]``."""
    counts = np.zeros(len(ROUNDS) * num_lists, np.int64)
    for path in _files(folder):
        counts += np.bincount(np.load(path, mmap_mode="r")["list"], minlength=len(counts))
    return counts.reshape(len(ROUNDS), num_lists)


def visitors_of(folder: Path, first: int, last: int) -> list[NDArray[np.int32]]:
    """Positions of the rows that visit each list in a range, ascending.

    Args:
        folder: Where the routes are.
        first: First list, plus ``num_lists`` in the second round.
        last: List after the last.
    """
    parts = []
    for path in _files(folder):
        visits = np.load(path, mmap_mode="r")
        own = range_of(visits["list"], first, last)
        if own.stop > own.start:
            parts.append(np.asarray(visits[own]))
    visits = np.concatenate([np.empty(0, VISIT), *parts])
    visits = visits[np.argsort(visits["list"], kind="stable")]
    cuts = np.searchsorted(visits["list"], np.arange(first + 1, last))
    return np.split(visits["row"].copy(), cuts)


def _files(folder: Path) -> list[Path]:
    return sorted((folder / STAGE).glob("*.npy"))
