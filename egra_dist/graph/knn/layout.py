"""The rows in the order of their lists, and who visits which list."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class Layout:
    """Rows stored list by list; a row's place in that order is its *position*.

    Attributes:
        order: ``int64 [num_rows]`` prepared row at each position.
        offsets: ``int64 [num_lists + 1]`` where each list starts.
        visitors: ``int32 [num_visits]`` positions of the rows that visit each list from
            elsewhere, list after list.
        visitor_offsets: ``int64 [num_lists + 1]`` where each list's visitors start.
    """

    order: NDArray[np.int64]
    offsets: NDArray[np.int64]
    visitors: NDArray[np.int32]
    visitor_offsets: NDArray[np.int64]

    @property
    def num_lists(self) -> int:
        """Number of lists."""
        return len(self.offsets) - 1

    @property
    def list_of_position(self) -> NDArray[np.int64]:
        """List of the row at each position: ``[num_rows]``."""
        return np.repeat(np.arange(self.num_lists), np.diff(self.offsets))

    def members(self, number: int) -> NDArray[np.int64]:
        """Positions of the rows of a list."""
        return np.arange(*self.offsets[number : number + 2])

    def visitors_of(self, number: int) -> NDArray[np.int32]:
        """Positions of the rows that visit a list."""
        first, last = self.visitor_offsets[number : number + 2]
        return np.asarray(self.visitors[first:last])

    @classmethod
    def of(cls, probes: NDArray[np.int32], num_lists: int) -> "Layout":
        """Orders rows by list.

        Args:
            probes: ``int32 [num_rows, num_probes]`` lists that each prepared row visits, its own
                first; -1 for none.
            num_lists: Number of lists.
        """
        order = np.argsort(probes[:, 0], kind="stable")
        sizes = np.bincount(probes[:, 0], minlength=num_lists)
        away = probes[order, 1:]
        visits = sparse.csr_matrix(
            (
                np.ones((away >= 0).sum(), np.int8),
                away[away >= 0],
                np.concatenate([[0], np.cumsum((away >= 0).sum(1))]),
            ),
            shape=(len(probes), num_lists),
        ).tocsc()
        return cls(
            order,
            np.concatenate([[0], np.cumsum(sizes)]),
            visits.indices.astype(np.int32),
            visits.indptr.astype(np.int64),
        )

    def save(self, folder: Path) -> None:
        """Writes one ``.npy`` per array."""
        for name in ("order", "offsets", "visitors", "visitor_offsets"):
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> "Layout":
        """Opens what :meth:`save` wrote, memory-mapped."""
        names = ("order", "offsets", "visitors", "visitor_offsets")
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))


def write_rows(rows: NDArray[np.float32], order: NDArray[np.int64], path: Path) -> None:
    """Writes prepared rows in the order of their positions."""
    target = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=rows.shape)
    for start in range(0, len(rows), _BLOCK_ROWS):
        target[start : start + _BLOCK_ROWS] = rows[order[start : start + _BLOCK_ROWS]]
    target.flush()
