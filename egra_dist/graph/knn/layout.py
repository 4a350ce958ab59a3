"""The rows in the order of their lists."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from egra_dist.graph.knn.prepare import PREPARED_FILE
from egra_dist.graph.knn.tasks import RowsTask

ROWS_FILE = "rows.npy"


@dataclass(frozen=True)
class Layout:
    """Rows stored list by list; a row's place in that order is its *position*.

    Attributes:
        order: ``int64 [num_rows]`` prepared row at each position.
        offsets: ``int64 [num_lists + 1]`` where each list starts.
    """

    order: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @property
    def num_lists(self) -> int:
        """Number of lists."""
        return len(self.offsets) - 1

    def members(self, number: int) -> NDArray[np.int32]:
        """Positions of the rows of a list."""
        return np.arange(*self.offsets[number : number + 2], dtype=np.int32)

    @classmethod
    def of(cls, lists: NDArray[np.int32], num_lists: int) -> "Layout":
        """Orders rows by list, ascending within each.

        Args:
            lists: ``int32 [num_rows]`` list of each prepared row.
            num_lists: Number of lists.
        """
        keys = lists * np.int64(2**32)
        keys += np.arange(len(lists))
        keys.sort()
        keys &= np.int64(2**32 - 1)
        sizes = np.bincount(lists, minlength=num_lists)
        return cls(keys, np.concatenate([[0], np.cumsum(sizes)]))

    def save(self, folder: Path) -> None:
        """Writes one ``.npy`` per array."""
        np.save(folder / "order.npy", self.order)
        np.save(folder / "offsets.npy", self.offsets)

    @classmethod
    def load(cls, folder: Path) -> "Layout":
        """Opens what :meth:`save` wrote, memory-mapped."""
        names = ("order", "offsets")
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))


@dataclass(frozen=True)
class PlaceTask(RowsTask):
    """Writes prepared rows into a range of positions of the file of placed rows."""

    def run(self, folder: Path) -> NDArray:
        """Returns nothing: ranges do not overlap, and a task that died writes the same again."""
        rows = np.load(folder / PREPARED_FILE, mmap_mode="r")
        order = np.load(folder / "order.npy", mmap_mode="r")[self.first : self.last]
        placed = np.load(folder / ROWS_FILE, mmap_mode="r")
        # Written rather than mapped: other nodes of a shared file system see it once it is closed.
        with (folder / ROWS_FILE).open("r+b") as file:
            file.seek(placed.offset + self.first * placed.strides[0])
            rows[order].tofile(file)
        return np.empty(0)
