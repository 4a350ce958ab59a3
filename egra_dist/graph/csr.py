"""Compressed sparse rows on disk and in memory."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


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

    def row_degrees(self) -> NDArray[np.float64]:
        """Sum of each row: ``[num_rows]``."""
        if self.values is None:
            return np.diff(self.indptr).astype(np.float64)
        sums = np.concatenate([[0.0], np.cumsum(self.values, dtype=np.float64)])
        return sums[self.indptr[1:]] - sums[self.indptr[:-1]]

    def save(self, folder: Path) -> None:
        """Writes one ``.npy`` per array into ``folder``, which is created."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "indptr.npy", self.indptr)
        np.save(folder / "indices.npy", self.indices)
        if self.values is not None:
            np.save(folder / "values.npy", self.values)
        np.save(folder / "num_columns.npy", np.int64(self.num_columns))

    @classmethod
    def load(cls, folder: Path) -> "Csr":
        """Opens the arrays memory-mapped, so that processes of one host share one copy."""
        values = folder / "values.npy"
        return cls(
            indptr=np.load(folder / "indptr.npy", mmap_mode="r"),
            indices=np.load(folder / "indices.npy", mmap_mode="r"),
            values=np.load(values, mmap_mode="r") if values.exists() else None,
            num_columns=int(np.load(folder / "num_columns.npy")),
        )
