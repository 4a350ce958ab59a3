"""Rows appended to a table whose graph exists: their edges, and those of old rows to them.

The lists are drawn over the whole table, but only pairs with a new row are compared: a new row
with every list it visits, an old row with the new rows of the lists it visits. An old row's k-th
score in the earlier graph is its bound, so that it changes only where a new row is nearer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from egra_dist.errors import UserError
from egra_dist.graph.knn.auditor import Auditor
from egra_dist.graph.knn.build import assemble, default_workers, working_folder
from egra_dist.graph.knn.cost import Choice
from egra_dist.graph.knn.edges import as_edges, no_edges
from egra_dist.graph.knn.graph import NO_NEIGHBOR, KnnGraph
from egra_dist.graph.knn.layout import Layout
from egra_dist.graph.knn.meter import Meter, Progress
from egra_dist.graph.knn.methods import Found
from egra_dist.graph.knn.prepare import Prepared, prepare
from egra_dist.graph.knn.routed import VisitorsTask, WithinTask, whole_lists
from egra_dist.graph.knn.selfjoin import PAIRS_PER_TASK, SelfJoin
from egra_dist.graph.knn.settings import KnnSettings
from egra_dist.graph.knn.tasks import Workers

IS_NEW_FILE = "is_new.npy"
EARLIER_FILE = "earlier.npy"


@dataclass(frozen=True)
class AppendWithinTask(WithinTask):
    """First neighbours of the new rows of some lists: those of their own list."""

    def known(self, folder: Path, first: int, last: int) -> NDArray:
        """The earlier edges; none of new rows."""
        return np.array(np.load(folder / EARLIER_FILE, mmap_mode="r")[first:last])

    def wanted(self, folder: Path, first: int, last: int) -> NDArray[np.int64]:
        """The new rows."""
        return np.flatnonzero(np.load(folder / IS_NEW_FILE, mmap_mode="r")[first:last])


@dataclass(frozen=True)
class AppendTask(VisitorsTask):
    """Edges between rows of some lists and their visitors, one of them new."""

    def sides(
        self, folder: Path, members: NDArray, visitors: NDArray
    ) -> Iterator[tuple[NDArray, NDArray]]:
        """New members and new visitors with all members, old visitors with new members."""
        is_new = np.load(folder / IS_NEW_FILE, mmap_mode="r")
        new = members[is_new[members]]
        visits_new = is_new[visitors]
        if self.round == 0:
            yield new, members
        yield visitors[visits_new], members
        yield visitors[~visits_new], new


def append_knn(
    earlier: KnnGraph,
    vectors: NDArray,
    settings: KnnSettings,
    present: NDArray[np.bool_] | None = None,
    workdir: Path | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> KnnGraph:
    """Extends a graph to rows that were appended to its table.

    Args:
        earlier: The graph of the first rows, built with the same k and metric.
        vectors: ``[num_rows, dim]`` the whole table: the earlier rows, unchanged, then new ones.
        settings: As in :func:`~egra_dist.graph.knn.build.build_knn`.
        present: ``bool [num_rows]``; rows that are False have no vector.
        workdir: Folder for the results of tasks.
        progress: Is told the number of rows done.
        workers: Who runs the tasks.

    Returns:
        The graph of the whole table; its recall is audited over all rows.

    Raises:
        UserError: If the graph cannot be one of the first rows, or the vectors are wrong.
    """
    _check(earlier, vectors, settings)
    meter = Meter(len(vectors), progress)
    with working_folder(vectors, settings, present, workdir, "append") as folder:
        prepared = prepare(vectors, settings.metric, present, folder, collapse=False)
        # Few rows are new: processors do it, also where there are GPUs.
        workers = replace(workers or default_workers(*prepared.rows.shape), device="cpu")
        join = SelfJoin(prepared.rows, settings, folder, workers, meter)
        found = _Append(join, earlier, prepared).run()
        graph = assemble(vectors, settings, prepared, found, meter)
    num_new = graph.num_rows - earlier.num_rows
    return replace(graph, statistics={**graph.statistics, "num_appended_rows": num_new})


def _check(earlier: KnnGraph, vectors: NDArray, settings: KnnSettings) -> None:
    if earlier.num_rows > len(vectors):
        raise UserError(
            f"vectors: {len(vectors)} rows, but the graph to append to has {earlier.num_rows}"
        )
    for name, value in (("k", settings.k), ("metric", settings.metric)):
        before = earlier.statistics.get(name, earlier.k if name == "k" else value)
        if before != value:
            raise UserError(f"{name}: {value}, but the graph to append to has {before}")


class _Append:
    """The stages of one extension."""

    def __init__(self, join: SelfJoin, earlier: KnnGraph, prepared: Prepared) -> None:
        self._join = join
        self._earlier = earlier
        self._table_rows = prepared.duplicates.members

    def run(self) -> Found:
        join, settings = self._join, self._join.settings
        audit = Auditor(join)
        choice, reach = audit.choose_reach(Choice("routed", "rows were appended"))
        layout = join.layout(reach)
        self._write_inputs(layout)
        edges = join.join_lists(layout, *self._tasks(layout))
        ids, scores = join.in_prepared_order(edges)
        recall = audit.recall(scores)
        statistics = {
            "method": "appended",
            "reason": choice.reason,
            **recall.as_statistics(settings.recall),
            **join.describe(layout),
        }
        return Found(ids, scores, statistics)

    def _tasks(self, layout: Layout) -> tuple[list[AppendWithinTask], list[list[AppendTask]]]:
        settings = self._join.settings
        k, metric = settings.k, settings.metric
        is_new = np.load(self._join.folder / IS_NEW_FILE)
        new = np.diff(np.concatenate([[0], np.cumsum(is_new)])[layout.offsets]).astype(float)
        sizes = np.diff(layout.offsets)
        own = new * sizes + 1
        within = [
            AppendWithinTask(first, last, float(own[first:last].sum()), k, metric)
            for first, last in whole_lists(own, PAIRS_PER_TASK)
        ]
        works = own + self._join.visits(layout) * (new + sizes * is_new.mean())
        visits = [
            [
                AppendTask(first, last, float(work[first:last].sum()), k, metric, number)
                for first, last in whole_lists(work, PAIRS_PER_TASK)
            ]
            for number, work in enumerate(works)
        ]
        return within, visits

    def _write_inputs(self, layout: Layout) -> None:
        """Writes, by position, which rows are new and the edges of the others."""
        folder, k = self._join.folder, self._join.settings.k
        table_rows = self._table_rows[layout.order]
        is_new = table_rows >= self._earlier.num_rows
        np.save(folder / IS_NEW_FILE, is_new)
        prepared_of_table = np.full(self._earlier.num_rows + 1, -1)
        old = self._table_rows[self._table_rows < self._earlier.num_rows]
        prepared_of_table[old] = np.arange(len(old))
        position_of_prepared = np.empty(len(layout.order) + 1, np.int64)
        position_of_prepared[layout.order] = np.arange(len(layout.order))
        position_of_prepared[-1] = NO_NEIGHBOR
        edges = no_edges(len(layout.order), k)
        rows = table_rows[~is_new]
        neighbors = position_of_prepared[prepared_of_table[self._earlier.neighbors[rows]]]
        edges[~is_new] = as_edges(neighbors, self._earlier.scores[rows])
        np.save(folder / EARLIER_FILE, edges)
