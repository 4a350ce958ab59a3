"""Entries of sparse matrices as flat arrays, handed out by item tile."""

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.graph.csr import Csr


def gather_rows(
    matrix: Csr, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Entries of some rows, without a loop over rows.

    Args:
        matrix: Any sparse matrix, memory-mapped or not.
        rows: ``int64 [num_rows]``.

    Returns:
        Per entry the position in ``rows`` and the column, both ``int64 [num_entries]``, in the
        order of ``rows``.
    """
    begins = matrix.indptr[rows]
    lengths = matrix.indptr[rows + 1] - begins
    positions = np.repeat(np.arange(len(rows)), lengths)
    offsets = np.arange(len(positions)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return positions, matrix.indices[begins[positions] + offsets].astype(np.int64)


class TileEntries(NamedTuple):
    """Entries within one tile, ascending by row, all ``int64 [num_entries]``."""

    ids: Tensor
    """Numbers of the entries in the order in which they were given."""
    rows: Tensor
    columns: Tensor
    """Item minus the tile's first item."""

    def of_rows(self, rows: slice) -> "TileEntries":
        """Those in a range of rows."""
        bounds = self.rows.new_tensor([rows.start, rows.stop])
        extent = slice(*torch.searchsorted(self.rows, bounds).tolist())
        return TileEntries(self.ids[extent], self.rows[extent], self.columns[extent])

    def split(self, size: int) -> "Iterator[TileEntries]":
        """Consecutive parts of at most ``size`` entries."""
        return map(TileEntries, *(field.split(size) for field in self))


class EntriesByItem:
    """User-item pairs sorted by item once, so that a tile is one contiguous run of them.

    It holds 24 bytes for each: of a whole catalogue there are many.
    """

    def __init__(self, rows: Tensor, items: Tensor) -> None:
        """Sorts the pairs.

        Args:
            rows: ``int64 [num_entries]`` row of the user vectors.
            items: ``int64 [num_entries]``.
        """
        self._sorted_items, self._ids = items.sort(stable=True)
        self._sorted_rows = rows[self._ids]

    @cached_property
    def rows(self) -> Tensor:
        """Rows of the entries as they were given, ``int64 [num_entries]``."""
        return self._as_given(self._sorted_rows)

    @cached_property
    def items(self) -> Tensor:
        """Items of the entries as they were given, ``int64 [num_entries]``."""
        return self._as_given(self._sorted_items)

    def _as_given(self, values: Tensor) -> Tensor:
        return torch.empty_like(values).index_copy_(0, self._ids, values)

    def contains(self, rows: Tensor, items: Tensor) -> Tensor:
        """Whether pairs are among the entries: ``bool``, shaped as ``rows``."""
        if len(self._ids) == 0:
            return torch.zeros_like(rows, dtype=torch.bool)
        num_rows = 1 + max(
            int(part.max()) if len(part) else 0 for part in (rows, self._sorted_rows)
        )
        keys = (self._sorted_items * num_rows).add_(self._sorted_rows).sort().values
        wanted = items * num_rows + rows
        return keys[torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)] == wanted

    def tile(self, start: int, stop: int) -> TileEntries:
        """Entries with ``start <= item < stop``."""
        bounds = self._sorted_items.new_tensor([start, stop])
        extent = slice(*torch.searchsorted(self._sorted_items, bounds).tolist())
        rows, order = self._sorted_rows[extent].sort(stable=True)
        columns = self._sorted_items[extent][order] - start
        return TileEntries(self._ids[extent][order], rows, columns)
