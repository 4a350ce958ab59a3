"""Rows that are exactly equal: searched once, expanded afterwards.

Equal rows have equal scores, and a kernel breaks ties by chance. With one representative per
group of equal rows the search has no such ties, and a group of thousands costs one row.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class Duplicates:
    """Groups of equal rows, in the order of their lowest row.

    Attributes:
        positions: ``int64 [num_groups]`` position among the usable rows of each representative.
        members: ``int64 [num_usable]`` table rows, group after group, ascending within a group.
        offsets: ``int64 [num_groups + 1]`` where each group starts in ``members``.
        num_rows: Rows of the table, unusable ones included.
    """

    positions: NDArray[np.int64]
    members: NDArray[np.int64]
    offsets: NDArray[np.int64]
    num_rows: int

    @property
    def all_distinct(self) -> bool:
        """Whether no two usable rows are equal."""
        return len(self.positions) == len(self.members)

    @property
    def representatives(self) -> NDArray[np.int64]:
        """Table row of each group's representative: ``[num_groups]``."""
        return self.members[self.offsets[:-1]]


def find_duplicates(
    rows: NDArray[np.float32], table_rows: NDArray[np.int64], num_rows: int
) -> Duplicates:
    """Groups equal rows.

    Args:
        rows: ``[num_usable, dim]``.
        table_rows: ``[num_usable]`` ascending row of the table of each.
        num_rows: Rows of the table.
    """
    hashes = _hashes(rows)
    ordered = np.sort(hashes)
    if not (ordered[1:] == ordered[:-1]).any():
        return no_duplicates(rows, table_rows, num_rows)
    group = _group_of_each(rows, hashes)
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group) if len(group) else np.empty(0, np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Duplicates(order[offsets[:-1]], table_rows[order], offsets, num_rows)


def no_duplicates(
    rows: NDArray[np.float32], table_rows: NDArray[np.int64], num_rows: int
) -> Duplicates:
    """Takes every row for distinct; arguments as in :func:`find_duplicates`."""
    offsets = np.arange(len(rows) + 1)
    return Duplicates(offsets[:-1], table_rows, offsets, num_rows)


def _group_of_each(rows: NDArray[np.float32], hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Number of each row's group, counted by the lowest row: ``[num_usable]``."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    same = np.flatnonzero(ordered[1:] == ordered[:-1])
    equal = np.zeros(max(0, len(rows) - 1), bool)
    for start in range(0, len(same), _BLOCK_ROWS):
        block = same[start : start + _BLOCK_ROWS]
        equal[block] = (rows[order[block]] == rows[order[block + 1]]).all(axis=1)
    leader = np.arange(len(rows))
    starts = np.flatnonzero(np.concatenate([[True], ~equal])) if len(rows) else leader
    leader[order] = np.repeat(order[starts], np.diff(np.append(starts, len(rows))))
    return np.unique(leader, return_inverse=True)[1]


def _hashes(rows: NDArray[np.float32]) -> NDArray[np.uint64]:
    """A 64-bit hash of each row's bits: ``[num_usable]``."""
    generator = np.random.default_rng(0)
    num_words = -(-rows.shape[1] // 2)
    weights = generator.integers(0, 2**63, num_words, dtype=np.uint64) * 2 + 1
    hashes = np.empty(len(rows), np.uint64)
    for start in range(0, len(rows), _BLOCK_ROWS):
        part = rows[start : start + _BLOCK_ROWS]
        padded = np.zeros((len(part), 2 * num_words), np.float32)
        # Adding zero turns -0.0 into 0.0: equal numbers, different bits.
        np.add(part, np.float32(0), out=padded[:, : rows.shape[1]])
        words = padded.view(np.uint64)
        words ^= words >> np.uint64(31)
        hashes[start : start + len(part)] = words @ weights
    return hashes
