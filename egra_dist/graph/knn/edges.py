"""Scored edges as arrays on disk, and how they become the k best of each row."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from egra_dist.graph.knn.tasks import RowsTask

EDGE = np.dtype([("id", np.int32), ("score", np.float32)])
"""The k best of a range of rows: ``EDGE [num_rows, k]``, id -1 and score -inf for none."""

PAIR = np.dtype([("row", np.int32), ("id", np.int32), ("score", np.float32)])
"""Edges found by one task in any rows: ``PAIR [num_pairs]``, ascending by row."""


_KEY_BITS = 64
_MERGED_AT_ONCE = 4096
_NO_PAIRS = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


def as_edges(ids: NDArray, scores: NDArray) -> NDArray:
    """``[num_rows, k]`` ids and scores as ``EDGE`` records."""
    edges = np.empty(ids.shape, EDGE)
    edges["id"], edges["score"] = ids, scores
    return edges


def no_edges(num_rows: int, k: int) -> NDArray:
    """``EDGE [num_rows, k]`` without any neighbour."""
    return np.full((num_rows, k), np.array((-1, -np.inf), EDGE))


def as_pairs(rows: NDArray, ids: NDArray, scores: NDArray) -> NDArray:
    """Rows, ids and scores ``[num_pairs]`` as ``PAIR`` records, ascending by row."""
    order = _ascending(rows.astype(np.uint64))
    pairs = np.empty(len(rows), PAIR)
    pairs["row"], pairs["id"], pairs["score"] = rows[order], ids[order], scores[order]
    return pairs


def join_pairs(pieces: Sequence[tuple[NDArray, NDArray, NDArray]]) -> NDArray:
    """Pieces of rows, ids and scores as ``PAIR`` records, ascending by row."""
    return as_pairs(*(np.concatenate(parts) for parts in zip(_NO_PAIRS, *pieces, strict=True)))


def pairs_of_range(path: Path, first: int, last: int) -> NDArray:
    """The pairs of a file whose row is in ``[first, last)``."""
    return np.asarray(_between(np.load(path, mmap_mode="r"), first, last))


def _between(pairs: NDArray, first: int, last: int) -> NDArray:
    return pairs[range_of(pairs["row"], first, last)]


def range_of(values: NDArray[np.integer], first: int, last: int) -> slice:
    """Where ascending values are in ``[first, last)``.

    They may be a field of records in a file: unlike numpy's search, which copies all of them, this
    one reads as many as it has steps.
    """
    return slice(bisect_left(values, first), bisect_left(values, last))


def merge(
    first: int, edges: NDArray, pairs: Sequence[NDArray], k: int, precedence: NDArray | None = None
) -> NDArray:
    """The ``k`` best of each row of a range, every neighbour once.

    Args:
        first: Row of the first of ``edges``.
        edges: ``EDGE [num_rows, any]`` edges of the range.
        pairs: Further edges whose rows are in the range.
        k: Edges kept per row.
        precedence: ``[num_ids]`` decides between ids of equal score, lower first; the ids
            themselves when None.

    Returns:
        ``EDGE [num_rows, k]``, best first, ties by precedence.
    """
    num_rows, width = edges.shape
    rows = np.concatenate(
        [np.repeat(np.arange(num_rows), width), *(p["row"] - first for p in pairs)]
    )
    ids = np.concatenate([edges["id"].ravel(), *(part["id"] for part in pairs)])
    scores = np.concatenate([edges["score"].ravel(), *(part["score"] for part in pairs)])
    order = _by_row_and_score(rows, scores, ids, precedence)
    rows, ids, scores = rows[order], ids[order], scores[order]
    kept = ids >= 0
    # The score of a pair depends on nothing but its rows: its copies stand next to each other.
    kept[1:] &= (ids[1:] != ids[:-1]) | (rows[1:] != rows[:-1])
    rows, ids, scores = rows[kept], ids[kept], scores[kept]
    rank = np.arange(len(rows)) - np.searchsorted(rows, np.arange(num_rows))[rows]
    kept = rank < k
    best = no_edges(num_rows, k)
    best["id"][rows[kept], rank[kept]] = ids[kept]
    best["score"][rows[kept], rank[kept]] = scores[kept]
    return best


def _by_row_and_score(
    rows: NDArray, scores: NDArray, ids: NDArray, precedence: NDArray | None
) -> NDArray[np.int64]:
    """Order by ascending row, descending score, ascending precedence of the id.

    One sort of integers of row and score, and a second one only among entries that tie.
    """
    bits = (-scores + np.float32(0)).view(np.uint32)
    ascending = np.where(bits >> 31 != 0, ~bits, bits | np.uint32(1 << 31))
    keys = (rows.astype(np.uint64) << np.uint64(32)) | ascending
    order = _ascending(keys)
    ordered = keys[order]
    same = ordered[1:] == ordered[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    entries = order[tied]
    ranks = ids[entries] if precedence is None else precedence[ids[entries]]
    order[tied] = entries[np.lexsort((ranks, keys[entries]))]
    return order


def _ascending(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Stable order of keys, by a sort of numbers that hold key and place where both fit.

    Numbers are sorted several times as fast as their places.
    """
    place_bits = max(1, len(keys) - 1).bit_length()
    if int(keys.max(initial=0)).bit_length() + place_bits > _KEY_BITS:
        return np.argsort(keys, kind="stable")
    shift = np.uint64(place_bits)
    both = keys << shift
    both |= np.arange(len(keys), dtype=np.uint64)
    both.sort()
    both &= (np.uint64(1) << shift) - np.uint64(1)
    return both.view(np.int64)


@dataclass(frozen=True)
class MergeTask(RowsTask):
    """Merges what tasks found for a range of rows, by position; ties by prepared row.

    Attributes:
        edges: Files of ``EDGE`` arrays, and the first row of each.
        pairs: Files of ``PAIR`` arrays.
        k: Edges kept per row.
    """

    edges: tuple[tuple[int, Path], ...]
    pairs: tuple[Path, ...]
    k: int

    def run(self, folder: Path) -> NDArray:
        """Returns ``EDGE [last - first, k]``."""
        found = [pairs_of_range(path, self.first, self.last) for path in self.pairs]
        found = [pairs for pairs in found if len(pairs)]
        edges = read_edges(self.edges, self.first, self.last)
        precedence = np.load(folder / "order.npy", mmap_mode="r")
        for start in range(0, len(edges), _MERGED_AT_ONCE):
            block = edges[start : start + _MERGED_AT_ONCE]
            first = self.first + start
            own = [_between(pairs, first, first + len(block)) for pairs in found]
            block[:] = merge(first, block, own, self.k, precedence)
        return edges


def read_edges(files: Sequence[tuple[int, Path]], first: int, last: int) -> NDArray:
    """Reads rows ``[first, last)`` of an array that lies in pieces.

    Args:
        files: First row and ``.npy`` file of each piece, in order.
        first: First row wanted.
        last: Row after the last.
    """
    parts = []
    for start, path in files:
        if start < last:
            part = np.load(path, mmap_mode="r")
            parts.append(np.asarray(part[max(0, first - start) : max(0, last - start)]))
    return np.concatenate(parts)
