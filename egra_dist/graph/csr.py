"""Compressed sparse rows on disk and in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

if TYPE_CHECKING:
    import scipy.sparse


@dataclass(frozen=True)
class Csr:
    """A sparse matrix of shape ``[num_rows, num_columns]``.

    Attributes:
        indptr: ``int64 [num_rows + 1]``; row ``i`` holds entries ``indptr[i]:indptr[i + 1]``.
        indices: ``int32 [num_entries]`` column of each entry, ascending within a row.
        values: ``float32 [num_entries]``; None when every entry is 1.
        num_columns: Number of columns.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32] | None
    num_columns: int

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    @property
    def num_entries(self) -> int:
        """Number of stored entries."""
        return len(self.indices)

    def as_plain_arrays(self) -> "Csr":
        """The same matrix; numpy takes single rows of its own arrays faster than of mapped ones."""
        values = None if self.values is None else np.asarray(self.values)
        return Csr(np.asarray(self.indptr), np.asarray(self.indices), values, self.num_columns)

    def row_degrees(self) -> NDArray[np.float64]:
        """Sum of each row, entry after entry in double precision: ``[num_rows]``."""
        counts = np.diff(self.indptr)
        if self.values is None:
            return counts.astype(np.float64)
        rows = np.repeat(np.arange(self.num_rows), counts)
        sums = np.bincount(rows, weights=self.values, minlength=self.num_rows)
        return sums.astype(np.float64)  # of no rows at all bincount makes integers

    def scaled(self, of_rows: NDArray[np.float64], of_columns: NDArray[np.float64]) -> "Csr":
        """Every entry times the factor of its row ``[num_rows]`` and of its column."""
        rows = np.repeat(np.arange(self.num_rows), np.diff(self.indptr))
        values = of_rows[rows] * of_columns[self.indices]
        if self.values is not None:
            values *= self.values
        return Csr(self.indptr, self.indices, values.astype(np.float32), self.num_columns)

    def as_scipy(self) -> "scipy.sparse.csr_array":
        """The same matrix as scipy has it, of the same arrays."""
        import scipy.sparse

        values = self.values
        if values is None:
            values = np.ones(self.num_entries, dtype=np.float32)
        shape = (self.num_rows, self.num_columns)
        return scipy.sparse.csr_array((values, self.indices, self.indptr), shape=shape)

    @classmethod
    def from_scipy(cls, matrix: "scipy.sparse.sparray") -> "Csr":
        """The same matrix, columns ascending in each row, without entries of value 0."""
        rows = matrix.tocsr()
        rows.eliminate_zeros()
        rows.sort_indices()
        return cls(
            indptr=rows.indptr.astype(np.int64),
            indices=rows.indices.astype(np.int32),
            values=rows.data.astype(np.float32),
            num_columns=rows.shape[1],
        )

    def save(self, folder: Path) -> None:
        """Writes one ``.npy`` per array into ``folder``, which is created."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "indptr.npy", self.indptr)
        np.save(folder / "indices.npy", self.indices)
        if self.values is not None:
            np.save(folder / "values.npy", self.values)
        np.save(folder / "num_columns.npy", np.int64(self.num_columns))

    @staticmethod
    def allocate(
        folder: Path, num_rows: int, num_entries: int, num_columns: int, has_values: bool
    ) -> None:
        """Makes the files of :meth:`save`, all zeros, to be filled in by pieces."""
        folder.mkdir(parents=True, exist_ok=True)
        open_memmap(folder / "indptr.npy", "w+", np.int64, (num_rows + 1,)).flush()
        open_memmap(folder / "indices.npy", "w+", np.int32, (num_entries,)).flush()
        if has_values:
            open_memmap(folder / "values.npy", "w+", np.float32, (num_entries,)).flush()
        np.save(folder / "num_columns.npy", np.int64(num_columns))

    @classmethod
    def load(cls, folder: Path, mode: Literal["r", "r+"] = "r") -> "Csr":
        """Opens the arrays memory-mapped, so that processes of one host share one copy."""
        values = folder / "values.npy"
        return cls(
            indptr=np.load(folder / "indptr.npy", mmap_mode=mode),
            indices=np.load(folder / "indices.npy", mmap_mode=mode),
            values=np.load(values, mmap_mode=mode) if values.exists() else None,
            num_columns=int(np.load(folder / "num_columns.npy")),
        )


def starts_of(counts: NDArray[np.integer] | NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where each of consecutive runs starts, and after them where the last ends.

    Args:
        counts: ``[num_runs]`` their lengths.

    Returns:
        ``int64 [num_runs + 1]``.
    """
    starts = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def inverse_roots(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """``D^-1/2`` of row sums ``[num_rows]``; 0 where a row is empty."""
    roots = np.zeros_like(degrees)
    np.power(degrees, -0.5, where=degrees > 0, out=roots)
    return roots
