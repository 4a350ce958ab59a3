"""Sampled neighbourhoods: some neighbours of some nodes, drawn from a memory-mapped matrix.

A row of more neighbours of one kind than the fan-out is replaced by ``fan_out`` of them: every
``degree / fan_out``-th from a random start on (systematic sampling, Madow & Madow 1944). Each is
drawn with probability ``fan_out / degree`` and weighs ``degree / fan_out`` times its entry, so that
the mean over draws is the row itself (Horvitz & Thompson 1952). No neighbour is drawn twice, which
spreads less than draws with replacement do: on rows of little more than the fan-out, far less.

What is drawn depends on a key, the row and nothing else, so that whoever asks for a row of a batch
gets the same one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egra_dist.graph.csr import Csr

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Block:
    """Rows of a matrix between the nodes that were asked for and those they gather from.

    Attributes:
        matrix: ``[num_rows, num_columns]``; a column is a place in ``columns``.
        columns: ``int64 [num_columns]``, distinct columns of the whole matrix, ascending.
    """

    matrix: Csr
    columns: NDArray[np.int64]


@dataclass(frozen=True)
class FanOut:
    """Most neighbours that a row keeps, by type of edge.

    Attributes:
        user_item: Items of a user, and users of an item.
        item_item: Items of an item.
    """

    user_item: int
    item_item: int


class NeighborSampler:
    """Draws neighbours from a matrix over users and items, or over items alone.

    Args:
        matrix: ``[num_nodes, num_nodes]``, users first; memory-mapped or not.
        num_users: How many of the nodes are users.
    """

    def __init__(self, matrix: Csr, num_users: int = 0) -> None:
        self._matrix = matrix.as_plain_arrays()
        self._num_users = num_users

    def sample(self, rows: NDArray[np.int64], fan_out: FanOut, key: int) -> Block:
        """Draws neighbours of rows.

        Args:
            rows: ``[num_rows]``, any rows of the matrix.
            fan_out: Most neighbours of each kind.
            key: Names the draw; the same key draws the same neighbours for a row.

        Returns:
            ``[num_rows, num_columns]``, an unbiased estimate of the rows; exact where no row has
            more neighbours than the fan-out.
        """
        starts = np.asarray(self._matrix.indptr[rows])
        stops = np.asarray(self._matrix.indptr[rows + 1])
        splits = starts.copy()
        # Users have no neighbours but items.
        items = np.flatnonzero(rows >= self._num_users) if self._num_users else rows[:0]
        splits[items] = self._first_items(starts[items], stops[items])
        of_items = np.where(rows < self._num_users, fan_out.user_item, fan_out.item_item)
        limits = np.stack([np.full(len(rows), fan_out.user_item), of_items], axis=1)
        edges = _draw_edges(
            np.stack([starts, splits], axis=1).ravel(),
            np.stack([splits, stops], axis=1).ravel(),
            limits.ravel(),
            mix(np.uint64(key) + _numbers(np.stack([2 * rows, 2 * rows + 1], axis=1).ravel())),
        )
        counts = edges.counts.reshape(-1, 2).sum(axis=1)
        columns, places = distinct(self._matrix.indices[edges.positions])
        values = edges.weights
        if self._matrix.values is not None:
            values = values * self._matrix.values[edges.positions]
        indptr = np.concatenate([[0], np.cumsum(counts)])
        return Block(Csr(indptr, places, values, len(columns)), columns)

    def _first_items(
        self, starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Where in each row, whose columns ascend, the first item stands."""
        if self._matrix.num_entries == 0:
            return starts
        low, high = starts.copy(), stops.copy()
        for _ in range(int((stops - starts).max(initial=0)).bit_length()):
            middle = (low + high) // 2
            # Where nothing is left to search, middle may stand behind the last entry.
            columns = self._matrix.indices[np.minimum(middle, self._matrix.num_entries - 1)]
            is_below = (columns < self._num_users) & (low < high)
            low = np.where(is_below, middle + 1, low)
            high = np.where(is_below, high, middle)
        return low


@dataclass(frozen=True)
class _Edges:
    """Entries of a matrix that were chosen: how many of each span, which, and their weights."""

    counts: NDArray[np.int64]
    positions: NDArray[np.int64]
    weights: NDArray[np.float32]


def _draw_edges(
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    limits: NDArray[np.int64],
    random: NDArray[np.uint64],
) -> _Edges:
    """All entries ``start <= position < stop`` of a span, or ``limit`` of them."""
    degrees = stops - starts
    counts = np.minimum(degrees, limits)
    spans = np.repeat(np.arange(len(starts)), counts)
    slots = np.arange(len(spans)) - np.repeat(np.cumsum(counts) - counts, counts)
    strides = np.maximum(degrees / np.maximum(limits, 1), 1)
    # Where all are taken they are taken from the first on.
    first = np.where(degrees > limits, _uniform(random), 0)
    chosen = ((slots + first[spans]) * strides[spans]).astype(np.int64)
    return _Edges(counts, starts[spans] + chosen, strides[spans].astype(np.float32))


def distinct(ids: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The distinct ids, ascending, and the place of each id among them.

    Ids and their positions are sorted as one number each: numpy sorts plain integers several times
    as fast as it finds the order that would sort them.
    """
    shift = np.uint64(max(len(ids) - 1, 1).bit_length())
    keys = ids.astype(np.uint64) << shift
    keys |= np.arange(len(ids), dtype=np.uint64)
    assert len(ids) == 0 or int(ids.max()) >> (64 - int(shift)) == 0, "too many, or too large"
    keys.sort()
    positions = (keys & ((np.uint64(1) << shift) - np.uint64(1))).astype(np.int32)
    keys >>= shift
    is_new = np.empty(len(keys), dtype=bool)
    is_new[:1] = True
    np.not_equal(keys[1:], keys[:-1], out=is_new[1:])
    places = np.empty(len(keys), dtype=np.int32)
    places[positions] = np.cumsum(is_new, dtype=np.int32) - np.int32(1)
    return keys[is_new].astype(np.int64), places


def combine_keys(*numbers: int) -> int:
    """One key of several numbers, such as seed, step and layer."""
    key = np.zeros(1, dtype=np.uint64)
    for number in numbers:
        key = mix(key + _numbers(np.array([number])))
    return int(key[0])


def _numbers(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Numbers far apart, so that sums of theirs do not meet."""
    return (numbers.astype(np.uint64) + np.uint64(1)) * _GOLDEN


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A number that looks random for each (the end of SplitMix64, Steele, Lea & Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _uniform(random: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers from 0 to ``1 - 2**-32``."""
    return (random >> np.uint64(32)).astype(np.float64) * 2.0**-32
