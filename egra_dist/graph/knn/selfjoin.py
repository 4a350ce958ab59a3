"""The distributed methods, stage by stage.

Both begin alike: centroids, routes, lists, neighbours within lists, visits, merge. The routed
method is then done; the exact one sweeps over all pairs with the bounds that this has given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from egra_dist.graph.knn.cost import list_size_of
from egra_dist.graph.knn.edges import MergeTask, read_edges
from egra_dist.graph.knn.kmeans import Centroids, train_cells
from egra_dist.graph.knn.layout import ROWS_FILE, Layout, PlaceTask
from egra_dist.graph.knn.meter import Meter
from egra_dist.graph.knn.routed import BOUNDS_FILE, ListsTask, visit_tasks, within_tasks
from egra_dist.graph.knn.routing import (
    AROUND_FILE,
    CENTROIDS_FILE,
    AroundTask,
    AssignTask,
    Reach,
    Router,
)
from egra_dist.graph.knn.settings import KnnSettings
from egra_dist.graph.knn.statistics import describe_lists
from egra_dist.graph.knn.sweep import sweep_tasks
from egra_dist.graph.knn.tasks import (
    RowsTask,
    Task,
    Workers,
    row_ranges,
    run_tasks,
    single_threaded,
)
from egra_dist.graph.knn.visits import ROUNDS, RouteTask, count_visits

ROWS_PER_TASK = 32_768
_LISTS_PER_TASK = 4096
PAIRS_PER_TASK = 5e7
_HEAD_ROWS = 4096
EdgeFiles = tuple[tuple[int, Path], ...]


@dataclass
class SelfJoin:
    """A self-join in a folder, which keeps what each task found.

    Attributes:
        rows: ``float32 [num_rows, dim]`` prepared rows, in the folder's ``prepared.npy``.
        settings: What is wanted.
        folder: Where results of tasks are kept.
        workers: Who runs the tasks.
        meter: Is told what is done.
    """

    rows: NDArray[np.float32]
    settings: KnnSettings
    folder: Path
    workers: Workers
    meter: Meter

    def router(self) -> Router:
        """Trains the centroids, or reads those of an earlier call."""
        metric = self.settings.metric
        if not (self.folder / AROUND_FILE).exists():
            num_lists = self._train_lists()
            tasks = [AroundTask(*lists, metric) for lists in row_ranges(num_lists, _LISTS_PER_TASK)]
            paths = self.run("around", tasks)
            _save(self.folder / AROUND_FILE, np.concatenate([np.load(path) for path in paths]))
        return Router.load(self.folder, metric)

    def _train_lists(self) -> int:
        """Writes the centroids; returns the number of lists."""
        settings, num_rows = self.settings, len(self.rows)
        wanted = max(1, num_rows // list_size_of(num_rows, settings))
        with single_threaded():
            cells, tasks = train_cells(
                self.rows, wanted, settings.metric, settings.seed, self.folder
            )
        lists = [torch.from_numpy(np.load(path)) for path in self.run("cells", tasks)]
        filled = [cell for cell, own in enumerate(lists) if len(own)]
        lists = [lists[cell] for cell in filled]
        offsets = torch.tensor([0, *map(len, lists)]).cumsum(0)
        centroids = Centroids(cells[filled], torch.cat(lists), offsets)
        centroids.save(self.folder / CENTROIDS_FILE)
        return len(centroids.lists)

    def head(self) -> NDArray[np.int64]:
        """Rows that every row visits: the largest, when the inner product favours them."""
        if self.settings.metric != "inner_product":
            return np.empty(0, np.int64)
        squares = np.concatenate(
            [
                np.einsum("ij,ij->i", part, part)
                for start in range(0, len(self.rows), ROWS_PER_TASK)
                for part in [self.rows[start : start + ROWS_PER_TASK]]
            ]
        )
        size = min(_HEAD_ROWS, len(self.rows) // 16)
        return np.sort(np.argsort(-squares, kind="stable")[:size])

    def routed(self, reach: Reach) -> tuple[Layout, EdgeFiles]:
        """Joins every row with its own list and those in its reach.

        Returns:
            The layout, and files of ``EDGE`` arrays by position.
        """
        layout = self.layout(reach)
        k, metric = self.settings.k, self.settings.metric
        within = within_tasks(layout, k, metric, PAIRS_PER_TASK / 4)
        visits = visit_tasks(layout, self.visits(layout), k, metric, PAIRS_PER_TASK)
        return layout, self.join_lists(layout, within, visits)

    def visits(self, layout: Layout) -> NDArray[np.int64]:
        """Rows that visit each list from elsewhere: ``[num_rounds, num_lists]``."""
        return count_visits(self.folder, layout.num_lists)

    def describe(self, layout: Layout) -> dict[str, Any]:
        """The lists, and in how many of them a row is compared."""
        num_visits = int(self.visits(layout).sum())
        lists_per_row = 1 + num_visits / max(1, len(layout.order))
        return describe_lists(np.diff(layout.offsets), lists_per_row)

    def join_lists(
        self,
        layout: Layout,
        within: Sequence[ListsTask],
        visits: Sequence[Sequence[ListsTask]],
    ) -> EdgeFiles:
        """Joins rows with their own list, and then with those that they visit.

        Args:
            layout: The lists.
            within: Tasks that return ``EDGE`` arrays of all rows, list by list.
            visits: For each round, tasks that return ``PAIR`` records given the bounds that the
                edges found before have.

        Returns:
            Files of ``EDGE`` arrays by position.
        """
        paths = self.run("within", within)
        starts = [int(layout.offsets[task.first]) for task in within]
        edges: EdgeFiles = tuple(zip(starts, paths, strict=True))
        for name, tasks in zip(ROUNDS, visits, strict=True):
            self.write_bounds(edges)
            edges = self.merge(f"merge-{name}", edges, self.run(f"visit-{name}", tasks))
        return edges

    def exact(self, edges: EdgeFiles) -> EdgeFiles:
        """Joins all pairs, given the edges of :meth:`routed`."""
        self.write_bounds(edges)
        sweep = sweep_tasks(len(self.rows), self.settings.k, self.settings.metric)
        return self.merge("merge-all", edges, self.run("sweep", sweep))

    def layout(self, reach: Reach) -> Layout:
        """Stores all rows list by list, and finds which other lists they visit."""
        metric = self.settings.metric
        ranges = row_ranges(len(self.rows), ROWS_PER_TASK)
        router = self.router()
        paths = self.run("assign", [AssignTask(*rows, metric) for rows in ranges])
        if not (self.folder / ROWS_FILE).exists():
            lists = np.concatenate([np.load(path) for path in paths])
            self._arranged(lists, len(router.centroids.lists)).save(self.folder)
            _allocate(self.folder / ROWS_FILE, self.rows.shape)
        self.run("place", [PlaceTask(*rows) for rows in ranges])
        self.run("route", [RouteTask(*rows, reach, metric) for rows in ranges])
        return Layout.load(self.folder)

    def _arranged(self, lists: NDArray[np.int32], num_lists: int) -> Layout:
        """The layout that follows from the list of each row, with a list for the head."""
        head = self.head()
        lists[head] = num_lists
        return Layout.of(lists, num_lists + (len(head) > 0))

    def write_bounds(self, edges: EdgeFiles) -> None:
        """Writes the score of every row's last edge."""
        last = [np.load(path, mmap_mode="r")["score"][:, -1] for _, path in edges]
        _save(self.folder / BOUNDS_FILE, np.concatenate(last))

    def merge(self, stage: str, edges: EdgeFiles, pairs: list[Path]) -> EdgeFiles:
        """Merges edges and pairs into the k best of each row, by position."""
        tasks = [
            MergeTask(*rows, edges, tuple(pairs), self.settings.k)
            for rows in row_ranges(len(self.rows), ROWS_PER_TASK)
        ]
        paths = self.run(stage, tasks)
        return tuple((task.first, path) for task, path in zip(tasks, paths, strict=True))

    def in_prepared_order(
        self, edges: EdgeFiles, stage: str = "gather"
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Neighbours and scores ``[num_rows, k]`` of the prepared rows, from those by position."""
        order = np.load(self.folder / "order.npy", mmap_mode="r")
        tasks = [OrderTask(*rows, edges) for rows in row_ranges(len(self.rows), ROWS_PER_TASK)]
        ids = np.empty((len(self.rows), self.settings.k), np.int32)
        scores = np.empty(ids.shape, np.float32)
        for task, path in zip(tasks, self.run(stage, tasks), strict=True):
            rows, found = order[task.first : task.last], np.load(path, mmap_mode="r")
            ids[rows], scores[rows] = found["id"], found["score"]
        return ids, scores

    def run(self, stage: str, tasks: Sequence[Task]) -> list[Path]:
        """Runs the tasks of a stage; see :func:`~egra_dist.graph.knn.tasks.run_tasks`."""
        with self.meter.stage(stage, sum(task.weight for task in tasks)) as on_done:
            return run_tasks(stage, tasks, self.folder, self.workers, on_done)


def _allocate(path: Path, shape: tuple[int, int]) -> None:
    partial = path.with_suffix(".partial")
    np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
    partial.replace(path)


def _save(path: Path, array: NDArray) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, array)
    partial.replace(path)


@dataclass(frozen=True)
class OrderTask(RowsTask):
    """Names the neighbours of a range of positions by their prepared rows.

    Attributes:
        edges: Files of ``EDGE`` arrays by position, and the first row of each.
    """

    edges: EdgeFiles

    def run(self, folder: Path) -> NDArray:
        """Returns ``EDGE [last - first, k]``."""
        order = np.load(folder / "order.npy", mmap_mode="r")
        part = read_edges(self.edges, self.first, self.last)
        part["id"] = np.where(part["id"] < 0, -1, order[part["id"]])
        return part
