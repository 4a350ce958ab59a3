"""Sparse matrices written to disk block of rows by block of rows, and normalised on the way.

A matrix comes from a source that gives one block at a time. Every block is a task of its own, so
that no process holds more than one, and they may run anywhere that sees the folders.
"""

import shutil
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.lib.format import open_memmap

from egra_dist.graph.buckets import Map
from egra_dist.graph.csr import Csr, inverse_roots, starts_of
from egra_dist.graph.partition import RowPartition

_ROOTS = "inverse_roots.npy"


class RowSource(Protocol):
    """A picklable description of a sparse matrix that can be had block by block."""

    @property
    def blocks(self) -> RowPartition:
        """The blocks of rows."""

    @property
    def num_columns(self) -> int:
        """Number of columns."""

    def read(self, number: int) -> Csr:
        """The rows of a block ``[num_rows_of_block, num_columns]``, in memory."""


def write_rows(
    source: RowSource, folder: Path, work: Path, run: Map, normalized: bool = False
) -> int:
    """Writes a matrix as :meth:`Csr.save` would.

    Args:
        source: The matrix.
        folder: Where it goes; created.
        work: Folder for what is written in between, which is removed.
        run: Who does the tasks.
        normalized: Whether ``D^-1/2 A D^-1/2`` is written, ``D`` the row sums of the whole
            (square) matrix.

    Returns:
        Number of entries.
    """
    work.mkdir(parents=True)
    blocks = source.blocks
    if normalized:
        open_memmap(work / _ROOTS, "w+", np.float64, (blocks.num_rows,)).flush()
    numbers = range(blocks.num_ranks)
    sizes = list(run(partial(_prepare, source, work, normalized), numbers))
    starts = starts_of(np.array(sizes, dtype=np.int64))
    has_values = normalized or Csr.load(work / "0").values is not None
    Csr.allocate(folder, blocks.num_rows, int(starts[-1]), source.num_columns, has_values)
    for _ in run(partial(_place, blocks, starts, folder, work), numbers):
        pass
    shutil.rmtree(work)
    return int(starts[-1])


def _prepare(source: RowSource, work: Path, normalized: bool, number: int) -> int:
    """Leaves a block, and what its rows contribute to the degrees; returns its entries."""
    rows = source.read(number)
    rows.save(work / str(number))
    if normalized and rows.num_rows:
        roots = np.load(work / _ROOTS, mmap_mode="r+")
        roots[source.blocks.block(number)] = inverse_roots(rows.row_degrees())
        roots.flush()
    return rows.num_entries


def _place(blocks: RowPartition, starts: np.ndarray, folder: Path, work: Path, number: int) -> None:
    """Writes a block to where it belongs in the whole matrix."""
    rows = Csr.load(work / str(number))
    block = blocks.block(number)
    entries = slice(int(starts[number]), int(starts[number + 1]))
    if (work / _ROOTS).exists():
        roots = np.load(work / _ROOTS, mmap_mode="r")
        rows = rows.scaled(np.array(roots[block]), roots)
    whole = Csr.load(folder, "r+")
    whole.indptr[block.start + 1 : block.stop + 1] = rows.indptr[1:] + entries.start
    whole.indices[entries] = rows.indices
    if rows.values is not None and whole.values is not None:
        whole.values[entries] = rows.values
