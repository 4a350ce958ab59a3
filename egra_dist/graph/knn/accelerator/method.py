"""The methods on a device: all pairs, or lists whose number an audit decides.

Each row finds its own neighbours: there is nothing to merge, and tasks are ranges of places.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from egra_dist.graph.knn import cost
from egra_dist.graph.knn.accelerator.table import (
    CENTROIDS_FILE,
    PLACES_FILE,
    open_table,
    write_layout,
)
from egra_dist.graph.knn.accelerator.tasks import (
    AssignTask,
    CentroidsTask,
    NearestTask,
    SampleTask,
)
from egra_dist.graph.knn.audit import SAMPLE_FILE, Recall, recall_of, sample_rows
from egra_dist.graph.knn.methods import Found, audited
from egra_dist.graph.knn.selfjoin import SelfJoin
from egra_dist.graph.knn.statistics import describe_lists
from egra_dist.graph.knn.tasks import row_ranges

_ROWS_PER_TASK = 2**20
_BYTES_PER_NUMBER = 4 + 4 + 2
_WORKING_BYTES = 8 * 2**30
_ASSUMED_BYTES = 16 * 2**30
_PROBES = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


def fits(join: SelfJoin) -> bool:
    """Whether the rows fit into a device: this machine's, or one of 16 GiB on a cluster."""
    is_here = join.workers.device != "cpu" and torch.cuda.is_available()
    there = torch.cuda.mem_get_info()[1] if is_here else _ASSUMED_BYTES
    return join.rows.size * _BYTES_PER_NUMBER + _WORKING_BYTES < there


def join_on_device(join: SelfJoin, choice: cost.Choice) -> Found:
    """Finds the neighbours of all rows on the device of the join's workers."""
    try:
        return _join(join, choice)
    finally:
        open_table.cache_clear()  # what comes next needs the memory


def _join(join: SelfJoin, choice: cost.Choice) -> Found:
    if choice.method != "exact" and join.settings.metric == "inner_product":
        choice = cost.Choice("exact", f"{choice.reason}; a GPU compares inner products with all")
    if choice.method == "exact":
        np.save(join.folder / CENTROIDS_FILE, np.zeros((1, join.rows.shape[1]), np.float32))
        write_layout(join.folder, np.zeros(len(join.rows), np.int32), 1)
        return _exact(join, choice)
    sizes = _write_lists(join)
    sample = _Sample(join)
    choice, num_probes = sample.choose_probes(choice, len(sizes))
    if num_probes is None:
        return _exact(join, choice)
    ids, scores = _nearest(join, "routed", num_probes)
    facts = describe_lists(sizes, num_probes)
    return audited(Found(ids, scores, facts), join, choice, sample.recall(scores[sample.rows]))


def _exact(join: SelfJoin, choice: cost.Choice) -> Found:
    """All pairs, in whichever order the rows are laid out: the open table has it."""
    num_rows, dim = join.rows.shape
    join.meter.expect({"exact": cost.device_seconds(num_rows**2, dim)})
    ids, scores = _nearest(join, "exact", None)
    return audited(Found(ids, scores, {}), join, choice, Recall(1.0, 0.0, num_rows))


def _write_lists(join: SelfJoin) -> NDArray[np.int64]:
    """Divides the rows into lists; returns the rows of each."""
    settings, num_rows = join.settings, len(join.rows)
    wanted = max(
        1, num_rows // (settings.list_size or min(cost.DEVICE_LIST_SIZE, max(1, num_rows // 8)))
    )
    device, metric = join.workers.device, settings.metric
    [path] = join.run("centroids", [CentroidsTask(wanted, settings.seed, metric, device)])
    centroids = np.load(path)
    np.save(join.folder / CENTROIDS_FILE, centroids)
    ranges = row_ranges(num_rows, _ROWS_PER_TASK)
    paths = join.run("assign", [AssignTask(*rows, metric, device) for rows in ranges])
    lists = np.concatenate([np.load(path) for path in paths])
    write_layout(join.folder, lists, len(centroids))
    return np.bincount(lists, minlength=len(centroids))


def _nearest(
    join: SelfJoin, stage: str, num_probes: int | None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Neighbours and scores ``[num_rows, k]`` of the prepared rows."""
    settings, device = join.settings, join.workers.device
    places = np.load(join.folder / PLACES_FILE, mmap_mode="r")
    tasks = [
        NearestTask(*rows, settings.k, settings.metric, device, num_probes)
        for rows in row_ranges(len(places), _ROWS_PER_TASK)
    ]
    ids = np.empty((len(join.rows), settings.k), np.int32)
    scores = np.empty((len(join.rows), settings.k), np.float32)
    for task, path in zip(tasks, join.run(stage, tasks), strict=True):
        rows, found = places[task.first : task.last], np.load(path, mmap_mode="r")
        rows = rows[rows >= 0]
        ids[rows], scores[rows] = found["id"], found["score"]
    return ids, scores


class _Sample:
    """Rows whose exact neighbours are known."""

    def __init__(self, join: SelfJoin) -> None:
        self._join = join
        settings = join.settings
        self.rows = sample_rows(len(join.rows), settings.audit_rows, settings.seed)
        np.save(join.folder / SAMPLE_FILE, self.rows)
        self._true_scores = self._scores("audit", None)

    def choose_probes(self, choice: cost.Choice, num_lists: int) -> tuple[cost.Choice, int | None]:
        """The fewest lists per row that have the recall wanted; None: all pairs cost less."""
        settings, (num_rows, dim) = self._join.settings, self._join.rows.shape
        tried = (settings.probes,) if settings.probes else _PROBES
        for number in tried:
            num_probes = min(number, num_lists)
            recall = self.recall(self._scores(f"audit-{num_probes}", num_probes))
            reason = f"{num_probes} lists per row have recall {recall.value:.4f} on the sample"
            if recall.value - recall.half_width >= settings.recall or num_probes == num_lists:
                break
        seconds = cost.device_routed_seconds(num_rows, dim, num_probes)
        is_enough = settings.probes or recall.value >= settings.recall
        costs_more = seconds > cost.device_seconds(num_rows**2, dim)
        if settings.method == "auto" and (costs_more or not is_enough):
            return cost.Choice("exact", f"{choice.reason}, but only {reason}"), None
        self._join.meter.expect({"routed": seconds})
        return cost.Choice("routed", f"{choice.reason}; {reason}"), num_probes

    def recall(self, scores: NDArray[np.float32]) -> Recall:
        """Recall of the scores ``[num_sampled, k]`` that were found."""
        return recall_of(scores, self._true_scores)

    def _scores(self, stage: str, num_probes: int | None) -> NDArray[np.float32]:
        settings, device = self._join.settings, self._join.workers.device
        task = SampleTask(0, len(self.rows), settings.k, settings.metric, device, num_probes)
        return np.load(self._join.run(stage, [task])[0])["score"]
