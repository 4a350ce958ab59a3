"""Who visits which list: found range by range of rows, read list by list.

Visits are made in two rounds. What a row finds in the few lists nearest to its own gives it a bound
so close to its true k-th score that little of what it meets in all others passes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from egra_dist.graph.knn.edges import range_of
from egra_dist.graph.knn.layout import ROWS_FILE, Layout
from egra_dist.graph.knn.routing import Reach, Router
from egra_dist.graph.knn.settings import Metric
from egra_dist.graph.knn.tasks import RowsTask

STAGE = "route"
ROUNDS = ("near", "far")
_NEAR_LISTS = 3
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
            own = torch.full((last - first,), number)
            gaps = router.gaps(torch.from_numpy(np.array(rows[first:last])), own).numpy()
            row, place, is_far = self._visits(gaps)
            lists = router.around[number].numpy()[place] + is_far * layout.num_lists
            found.append((lists.astype(np.int64) << _LIST_BITS) | (row + first))
        if layout.num_lists > num_routed:  # the head, which all others visit
            others = np.arange(self.first, min(self.last, starts[num_routed]))
            found.append((np.int64(num_routed) << _LIST_BITS) | others)
        return _as_visits(np.concatenate([np.empty(0, np.int64), *found]))

    def _visits(self, gaps: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """Row, place in ``around`` and round of each visit, given ``gaps [num_rows, around]``."""
        gaps[:, 0] = np.inf  # its own list
        visits = gaps <= self.reach.margin
        visits[:, 0] = False
        most = self.reach.max_probes - 1
        too_many = visits.sum(1) > most
        if too_many.any():
            visits[too_many] &= _is_among_least(gaps[too_many], most)
        row, place = np.nonzero(visits)
        return row, place, ~_is_among_least(gaps, _NEAR_LISTS)[row, place]


def _is_among_least(values: NDArray, count: int) -> NDArray[np.bool_]:
    """Which ``values [num_rows, width]`` are among the ``count`` least of their row."""
    if count >= values.shape[1]:
        return np.ones(values.shape, bool)
    if count < 1:
        return np.zeros(values.shape, bool)
    return values <= np.partition(values, count - 1, axis=1)[:, count - 1 : count]


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
