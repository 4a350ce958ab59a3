"""All pairs, each product once.

A quick routed self-join has given every row a bound close to its true k-th score. The sweep then
joins every block of rows with itself and the blocks after it: half of all pairs, and only the few
that beat a bound leave a task. Nothing that belongs into the graph can be lost: bounds are scores
of neighbours that exist.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from egra_dist.graph.knn.edges import join_pairs
from egra_dist.graph.knn.layout import ROWS_FILE
from egra_dist.graph.knn.routed import BOUNDS_FILE, edges_between, opened
from egra_dist.graph.knn.settings import Metric

_LARGEST_BLOCK = 32_768
SMALLEST_BLOCK = 4_096
_BLOCKS = 12


@dataclass(frozen=True)
class SweepTask:
    """Joins two blocks of rows, or a block with itself.

    Attributes:
        queries: First row and row after the last of one block.
        base: The same of the other.
        k: Neighbours per row.
        metric: Similarity.
    """

    queries: tuple[int, int]
    base: tuple[int, int]
    k: int
    metric: Metric

    @property
    def weight(self) -> float:
        """Pairs."""
        return float((self.queries[1] - self.queries[0]) * (self.base[1] - self.base[0]))

    def run(self, folder: Path) -> NDArray:
        """Returns ``PAIR`` records, rows and ids are positions."""
        rows, bounds = opened(folder / ROWS_FILE), opened(folder / BOUNDS_FILE)
        one, other = (np.arange(*side, dtype=np.int32) for side in (self.queries, self.base))
        found = edges_between(rows, bounds, one, other, self.k, self.metric)
        return join_pairs(found)


def sweep_tasks(num_rows: int, k: int, metric: Metric) -> list[SweepTask]:
    """Tasks that together compare every pair of rows."""
    size = min(_LARGEST_BLOCK, max(SMALLEST_BLOCK, num_rows // _BLOCKS))
    blocks = [(first, min(num_rows, first + size)) for first in range(0, num_rows, size)]
    return [
        SweepTask(one, other, k, metric)
        for number, one in enumerate(blocks)
        for other in blocks[number:]
    ]
