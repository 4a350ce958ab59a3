"""The routed self-join: each row is stored in one list and visits the nearest others.

A task joins some lists first with themselves, which gives every row a bound, then with the rows
that visit them: only pairs that beat the bound of one of their rows leave the task, in both
directions.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.graph.knn.edges import join_pairs, no_edges
from egra_dist.graph.knn.join import Side, join
from egra_dist.graph.knn.kernel import search
from egra_dist.graph.knn.layout import ROWS_FILE, Layout
from egra_dist.graph.knn.scoring import as_base, as_products, as_queries, pair_scores
from egra_dist.graph.knn.settings import Metric
from egra_dist.graph.knn.tasks import FEWEST_TASKS, MOST_TASKS
from egra_dist.graph.knn.visits import visitors_of

BOUNDS_FILE = "bounds.npy"
_BASE_BLOCK = 2048
_FEWEST_PAIRS = 1e6


@dataclass(frozen=True)
class ListsTask(ABC):
    """A task on the rows of a range of lists.

    Attributes:
        first: First list.
        last: List after the last.
        weight: Pairs.
        k: Neighbours per row.
        metric: Similarity.
    """

    first: int
    last: int
    weight: float
    k: int
    metric: Metric

    @abstractmethod
    def run(self, folder: Path) -> NDArray:
        """Does the work on the files of ``folder``."""


@dataclass(frozen=True)
class WithinTask(ListsTask):
    """Neighbours of the rows of some lists among the rows of their own list."""

    def run(self, folder: Path) -> NDArray:
        """Returns ``EDGE [rows of the lists, k]``, ids are positions."""
        rows = opened(folder / ROWS_FILE)
        offsets = Layout.load(folder).offsets[self.first : self.last + 1]
        found = self.known(folder, int(offsets[0]), int(offsets[-1]))
        for start, stop in pairwise(offsets):
            wanted = torch.from_numpy(self.wanted(folder, int(start), int(stop)))
            if len(wanted):
                members, ids = rows[start:stop].clone(), wanted + int(start)
                part = search(members[wanted], members, self.k, self.metric, ids, int(start))
                found[start - offsets[0] + wanted.numpy()] = part
        return found

    def known(self, folder: Path, first: int, last: int) -> NDArray:
        """Edges ``EDGE [last - first, k]`` that a range of positions has before: none."""
        return no_edges(last - first, self.k)

    def wanted(self, folder: Path, first: int, last: int) -> NDArray[np.int64]:
        """Which rows of the list in that range get edges: all."""
        return np.arange(last - first)


@dataclass(frozen=True)
class VisitorsTask(ListsTask):
    """A task on the rows of some lists and those that visit them.

    Attributes:
        round: Which visits: 0 for those of the nearest lists, 1 for all others.
    """

    round: int

    def run(self, folder: Path) -> NDArray:
        """Returns ``PAIR`` records, rows and ids are positions."""
        rows, bounds = opened(folder / ROWS_FILE), opened(folder / BOUNDS_FILE)
        layout = Layout.load(folder)
        skipped = self.round * layout.num_lists
        visitors = visitors_of(folder, self.first + skipped, self.last + skipped)
        found = []
        for number, visiting in zip(range(self.first, self.last), visitors, strict=True):
            for queries, base in self.sides(folder, layout.members(number), visiting):
                found += edges_between(rows, bounds, queries, base, self.k, self.metric)
        return join_pairs(found)

    @abstractmethod
    def sides(
        self, folder: Path, members: NDArray, visitors: NDArray
    ) -> Iterator[tuple[NDArray, NDArray]]:
        """Positions that are compared with each other, for one list."""


@dataclass(frozen=True)
class VisitTask(VisitorsTask):
    """Edges between the rows of some lists and the rows that visit them.

    Attributes:
        part: Which part of the visitors of a list too heavy for one task, and how many there are.
    """

    part: tuple[int, int]

    def sides(
        self, folder: Path, members: NDArray, visitors: NDArray
    ) -> Iterator[tuple[NDArray, NDArray]]:
        """Part of the visitors, and the members."""
        yield np.array_split(visitors, self.part[1])[self.part[0]], members


def edges_between(
    rows: Tensor,
    bounds: Tensor,
    queries: NDArray,
    base: NDArray,
    k: int,
    metric: Metric,
) -> list[tuple[NDArray, NDArray, NDArray]]:
    """Edges, either way, that reach the bound of the row they start from.

    Args:
        rows: ``float32 [num_rows, dim]`` rows by position.
        bounds: ``float32 [num_rows]`` score that each row's k-th best neighbour reaches.
        queries: Positions of one side.
        base: Positions of the other side.
        k: Neighbours per row.
        metric: Similarity.

    Returns:
        Positions, neighbours and scores, in pieces.
    """
    found = []
    query_places = torch.from_numpy(queries)
    query_rows, query_bounds = rows[query_places], bounds[query_places]
    query_side = Side(as_queries(query_rows, metric), as_products(query_bounds, metric))
    for start in range(0, len(base), _BASE_BLOCK):
        members = base[start : start + _BASE_BLOCK]
        base_places = torch.from_numpy(members)
        base_rows, base_bounds = rows[base_places], bounds[base_places]
        base_side = Side(as_base(base_rows, metric), as_products(base_bounds, metric))
        places, columns = join(query_side, base_side, k + 1)
        one, other = torch.from_numpy(places), torch.from_numpy(columns)
        scores = pair_scores(query_rows, one, base_rows, other, metric)
        from_queries, from_base = scores >= query_bounds[one], scores >= base_bounds[other]
        query_ids, base_ids = queries[places], members[columns]
        for passed, sources, targets in (
            (from_queries.numpy(), query_ids, base_ids),
            (from_base.numpy(), base_ids, query_ids),
        ):
            passed &= sources != targets
            found.append((sources[passed], targets[passed], scores.numpy()[passed]))
    return found


def opened(path: Path) -> Tensor:
    """The array of a ``.npy`` file, memory-mapped; what is written to it stays in this process."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def split_lists(work: NDArray, most: float) -> list[tuple[int, int, tuple[int, int]]]:
    """Splits lists into tasks of about equal work.

    Args:
        work: ``[num_lists]`` pairs of each list.
        most: Pairs wanted per task; fewer where that gives less than ``FEWEST_TASKS`` tasks, more
            where it gives over ``MOST_TASKS``.

    Returns:
        First list, list after the last, and which part of how many: heavy lists are split.
    """
    tasks: list[tuple[int, int, tuple[int, int]]] = []
    target = min(most, max(_FEWEST_PAIRS, work.sum() / FEWEST_TASKS))
    target = max(target, work.sum() / MOST_TASKS)
    first = 0
    total = 0.0
    for number, amount in enumerate([*work, np.inf]):
        if number > first and total + amount > target:
            num_parts = max(1, round(total / target)) if number == first + 1 else 1
            tasks += [(first, number, (part, num_parts)) for part in range(num_parts)]
            first, total = number, 0.0
        total += amount
    return tasks


def whole_lists(work: NDArray, most: float) -> list[tuple[int, int]]:
    """As :func:`split_lists`, with heavy lists whole."""
    return list(dict.fromkeys(task[:2] for task in split_lists(work, most)))


def within_tasks(layout: Layout, k: int, metric: Metric, most: float) -> list[WithinTask]:
    """Tasks that join each list with itself."""
    work = np.diff(layout.offsets).astype(float) ** 2
    return [
        WithinTask(first, last, float(work[first:last].sum()), k, metric)
        for first, last in whole_lists(work, most)
    ]


def visit_tasks(
    layout: Layout, visits: NDArray[np.int64], k: int, metric: Metric, most: float
) -> list[list[VisitTask]]:
    """Tasks that join each list with its visitors, ``visits [num_rounds, num_lists]``, by round."""
    works = np.diff(layout.offsets) * visits.astype(float)
    return [
        [
            VisitTask(first, last, float(work[first:last].sum()) / part[1], k, metric, number, part)
            for first, last, part in split_lists(work, most)
        ]
        for number, work in enumerate(works)
    ]
