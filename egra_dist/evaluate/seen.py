"""Rows of sparse matrices as flat entries, and what each user has already seen."""

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


class SeenItems:
    """Items that must not be ranked for a user, handed out by item tile.

    Entries are sorted by item once, so that a tile is one contiguous run of them.
    """

    def __init__(self, rows: Tensor, items: Tensor) -> None:
        """Sorts the entries.

        Args:
            rows: ``int64 [num_entries]`` row of the user vectors.
            items: ``int64 [num_entries]``; repeated entries do no harm.
        """
        self._items, order = items.sort()
        self._rows = rows[order]

    @classmethod
    def of_users(
        cls, matrix: Csr, users: NDArray[np.int64], device: torch.device | None = None
    ) -> "SeenItems":
        """The rows of a user x item matrix; entry rows count from 0 in the order of ``users``."""
        rows, items = gather_rows(matrix, users)
        return cls(torch.from_numpy(rows).to(device), torch.from_numpy(items).to(device))

    def tile(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Entries with ``start <= item < stop``: rows (ascending) and columns within the tile."""
        extent = torch.searchsorted(self._items, self._items.new_tensor([start, stop])).tolist()
        rows, order = self._rows[slice(*extent)].sort()
        return rows, self._items[slice(*extent)][order] - start
