"""Products and counts of memory-mapped matrices, piece by piece."""

from collections.abc import Iterator

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import take_rows
from egra_dist.graph.sampler import distinct

_MAX_ROWS = 1 << 14
_MAX_ENTRIES = 1 << 19
_COUNTED_ENTRIES = 1 << 24


def column_counts(matrix: Csr) -> NDArray[np.int64]:
    """Entries of every column, ``[num_columns]``."""
    counts = np.zeros(matrix.num_columns, dtype=np.int64)
    for start in range(0, matrix.num_entries, _COUNTED_ENTRIES):
        part = matrix.indices[start : start + _COUNTED_ENTRIES]
        counts += np.bincount(part, minlength=matrix.num_columns)
    return counts


def row_blocks(
    matrix: Csr, rows: slice, max_rows: int = _MAX_ROWS, max_entries: int = _MAX_ENTRIES
) -> Iterator[slice]:
    """Consecutive blocks of rows, each of bounded size; a row is never cut.

    Args:
        matrix: ``[num_rows, num_columns]``.
        rows: Which of its rows.
        max_rows: Rows of a block.
        max_entries: Entries of a block that has more than one row.
    """
    start = rows.start
    while start < rows.stop:
        ends = matrix.indptr[start + 1 : min(start + max_rows, rows.stop) + 1]
        num_rows = np.searchsorted(ends, matrix.indptr[start] + max_entries, side="right")
        stop = start + max(int(num_rows), 1)
        yield slice(start, stop)
        start = stop


def multiply_rows(
    matrix: Csr, rows: slice, dense: NDArray[np.float32], first_column: int = 0
) -> NDArray[np.float32]:
    """Some rows of a product; of ``dense`` only what they point at is read.

    Args:
        matrix: ``[num_rows, num_columns]``.
        rows: Which of its rows.
        dense: ``[num_columns - first_column, dim]``, memory-mapped or not.
        first_column: The column that the first row of ``dense`` belongs to; there are no entries
            in those before.

    Returns:
        ``[len(rows), dim]``.
    """
    block = take_rows(matrix, [rows])
    columns, places = distinct(block.indices)
    values = np.ones(len(places), np.float32) if block.values is None else block.values
    shape = (block.num_rows, len(columns))
    return (
        scipy.sparse.csr_array((values, places, block.indptr), shape=shape)
        @ (dense[columns - first_column])
    )
