"""The rows in the order of their lists, and who visits which list."""

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
    def of(cls, lists: NDArray[np.int32], visits: NDArray, num_lists: int) -> "Layout":
        """Orders rows by list.

        Args:
            lists: ``int32 [num_rows]`` list of each prepared row.
            visits: ``VISIT [num_visits]`` lists that prepared rows visit beside their own.
            num_lists: Number of lists.
        """
        order, offsets = _by_list(lists, np.arange(len(lists)), num_lists)
        position = np.empty(len(order), np.int32)
        position[order] = np.arange(len(order))
        visitors, visitor_offsets = _by_list(visits["list"], position[visits["row"]], num_lists)
        return cls(order, offsets, visitors.astype(np.int32), visitor_offsets)

    def save(self, folder: Path) -> None:
        """Writes one ``.npy`` per array."""
        for name in ("order", "offsets", "visitors", "visitor_offsets"):
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> "Layout":
        """Opens what :meth:`save` wrote, memory-mapped."""
        names = ("order", "offsets", "visitors", "visitor_offsets")
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))


def _by_list(
    lists: NDArray[np.int32], rows: NDArray, num_lists: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows list after list, ascending within each, and where each list starts."""
    keys = lists * np.int64(2**32)
    keys += rows
    keys.sort()
    keys &= np.int64(2**32 - 1)
    sizes = np.bincount(lists, minlength=num_lists)
    return keys, np.concatenate([[0], np.cumsum(sizes)])


@dataclass(frozen=True)
class PlaceTask(RowsTask):
    """Writes prepared rows into a range of positions of the file of placed rows."""

    def run(self, folder: Path) -> NDArray:
        """Returns nothing: ranges do not overlap, and a task that died writes the same again."""
        rows = np.load(folder / PREPARED_FILE, mmap_mode="r")
        order = np.load(folder / "order.npy", mmap_mode="r")[self.first : self.last]
        placed = np.load(folder / ROWS_FILE, mmap_mode="r+")
        placed[self.first : self.last] = rows[order]
        placed.flush()
        return np.empty(0)
