"""Edges as streams of blocks, so that no process ever holds them all."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog, Split

Direction = Literal["directed", "union", "mutual"]
EDGES_PER_BLOCK = 1 << 20


class EdgeBlock(NamedTuple):
    """Some edges, in any order.

    Attributes:
        rows: ``int32 [num_edges]``.
        columns: ``int32 [num_edges]``.
        values: ``float32 [num_edges]``; None when all are 1.
    """

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    values: NDArray[np.float32] | None = None


class EdgeStream(Protocol):
    """A picklable description of edges that can be read again and again."""

    def blocks(self) -> Iterator[EdgeBlock]:
        """Yields them in blocks of bounded size."""


@dataclass(frozen=True)
class InteractionEdges:
    """The interactions of one part of a split, as edges of the user-item graph, both ways.

    Nodes are users ``0..U-1`` and items ``U..U+I-1``.

    Attributes:
        catalog: Where they are.
        split: Which split.
        part: Which of its parts.
    """

    catalog: Catalog
    split: Split
    part: Path

    @classmethod
    def of(cls, catalog: Catalog, split: Split = "train") -> "list[InteractionEdges]":
        """One stream for each part of a split."""
        catalog = replace(catalog, path=catalog.path.resolve())  # for workers that start elsewhere
        return [cls(catalog, split, part) for part in catalog.interaction_parts(split)]

    def blocks(self) -> Iterator[EdgeBlock]:
        """See :class:`EdgeStream`."""
        first_item = np.int32(self.catalog.num_users)
        for users, items in self.catalog.iter_part(self.part, EDGES_PER_BLOCK // 2):
            nodes = items + first_item
            yield EdgeBlock(np.concatenate([users, nodes]), np.concatenate([nodes, users]))


@dataclass(frozen=True)
class NeighborEdges:
    """The edges of a range of rows of a kNN graph.

    Attributes:
        graph: Folder of a saved :class:`egra_dist.graph.knn.KnnGraph`.
        first: First row.
        last: Row after the last.
        reverse: Whether every edge is there backwards, too.
        weighted: Whether an edge weighs its score (never below 0), or 1.
        loops: File of ``bool [num_rows]``: which rows neighbour themselves as well.
    """

    graph: Path
    first: int
    last: int
    reverse: bool = False
    weighted: bool = False
    loops: Path | None = None

    @classmethod
    def of(
        cls,
        graph: Path,
        direction: Direction = "directed",
        weighted: bool = False,
        loops: Path | None = None,
        rows_per_stream: int = 1 << 20,
    ) -> "list[NeighborEdges]":
        """Streams for the rows of a saved graph."""
        num_rows = len(np.load(graph / "neighbors.npy", mmap_mode="r"))
        starts = range(0, num_rows, rows_per_stream)
        reverse = direction != "directed"
        return [
            cls(graph, first, min(first + rows_per_stream, num_rows), reverse, weighted, loops)
            for first in starts
        ]

    def blocks(self) -> Iterator[EdgeBlock]:
        """See :class:`EdgeStream`."""
        neighbors = np.load(self.graph / "neighbors.npy", mmap_mode="r")
        scores = np.load(self.graph / "scores.npy", mmap_mode="r") if self.weighted else None
        size = max(1, EDGES_PER_BLOCK // (2 * neighbors.shape[1] + 1))
        for first in range(self.first, self.last, size):
            block = slice(first, min(first + size, self.last))
            exists = neighbors[block] >= 0
            rows = (np.nonzero(exists)[0] + first).astype(np.int32)
            columns = neighbors[block][exists]
            values = None if scores is None else np.maximum(scores[block][exists], 0)
            yield self._with_loops(self._both_ways(EdgeBlock(rows, columns, values)), block)

    def _both_ways(self, edges: EdgeBlock) -> EdgeBlock:
        rows, columns, values = edges
        if not self.reverse:
            return edges
        both = None if values is None else np.concatenate([values, values])
        return EdgeBlock(np.concatenate([rows, columns]), np.concatenate([columns, rows]), both)

    def _with_loops(self, edges: EdgeBlock, block: slice) -> EdgeBlock:
        if self.loops is None:
            return edges
        own = np.flatnonzero(np.load(self.loops, mmap_mode="r")[block]).astype(np.int32)
        own += np.int32(block.start)
        rows, columns, values = edges
        if values is not None:
            values = np.concatenate([values, np.ones(len(own), np.float32)])
        return EdgeBlock(np.concatenate([rows, own]), np.concatenate([columns, own]), values)
