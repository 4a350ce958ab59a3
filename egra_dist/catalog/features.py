"""Feature matrices as they come: checked row by row, reordered block by block."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egra_dist.errors import UserError

BLOCK_ROWS = 1 << 14
BLOCK_VALUES = 1 << 22
_WRITTEN_AS = {"float16": np.float16, "float32": np.float32, "float64": np.float32}


def open_npy(path: Path) -> NDArray[Any]:
    """Opens a feature matrix ``[num_rows, dim]`` memory-mapped.

    Raises:
        UserError: If it is not a readable ``.npy`` of a matrix of floats.
    """
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such feature file") from None
    except Exception as error:  # an arbitrary header raises arbitrary exceptions
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable .npy file: {reason}") from None
    if values.ndim != 2 or 0 in values.shape:
        raise UserError(f"{path}: shape is {list(values.shape)}, must be [num_items, dim]")
    if str(values.dtype) not in _WRITTEN_AS:
        raise UserError(f"{path}: dtype is {values.dtype}, must be one of {list(_WRITTEN_AS)}")
    return values


def find_present(values: NDArray[Any], source: str) -> NDArray[np.bool_]:
    """Which rows hold a feature vector; a row of zeros marks the modality as missing.

    Args:
        values: ``[num_rows, dim]``.
        source: The file, for the message.

    Returns:
        ``bool [num_rows]``.

    Raises:
        UserError: If a value is NaN, infinite, or not representable in the written type.
    """
    present = np.empty(len(values), dtype=bool)
    start = 0
    with np.errstate(over="ignore"):
        for block in RowBlocks(values):
            finite = np.isfinite(block)
            if not finite.all():
                row, column = (int(index[0]) for index in np.nonzero(~finite))
                value = values[start + row, column]
                raise UserError(
                    f"{source}: row {start + row}, column {column} is {value}, must be finite "
                    f"(mark a missing modality by a row of zeros)"
                )
            present[start : start + len(block)] = block.any(axis=1)
            start += len(block)
    return present


@dataclass(frozen=True)
class RowBlocks:
    """Rows of a matrix in a chosen order, block by block, in the type that is written.

    Iterates over blocks ``[*, dim]`` as often as asked.

    Attributes:
        values: ``[num_values, dim]``, may be memory-mapped.
        rows: ``[num_rows]``: which row comes when, -1 for one of zeros; all as they stand if None.
        values_per_block: What a block holds at most, but for a few rows.
    """

    values: NDArray[Any]
    rows: NDArray[np.integer] | None = None
    values_per_block: int = BLOCK_VALUES

    def __len__(self) -> int:
        return len(self.values) if self.rows is None else len(self.rows)

    @property
    def dim(self) -> int:
        """Width of a row."""
        return int(self.values.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type that is written."""
        return np.dtype(_WRITTEN_AS[str(self.values.dtype)])

    def __iter__(self) -> Iterator[NDArray[Any]]:
        rows_per_block = min(BLOCK_ROWS, max(16, self.values_per_block // self.dim))
        for start in range(0, len(self), rows_per_block):
            yield self._take(slice(start, start + rows_per_block))

    def _take(self, part: slice) -> NDArray[Any]:
        if self.rows is None:
            return self.values[part].astype(self.dtype, copy=False)
        wanted = self.rows[part]
        block = self.values[np.maximum(wanted, 0)].astype(self.dtype, copy=False)
        block[wanted < 0] = 0
        return block


def with_present(
    blocks: Iterable[NDArray[Any]], present: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
    """Each block ``[*, dim]`` together with which of its rows are present, ``bool [*]``."""
    start = 0
    for block in blocks:
        yield block, np.asarray(present[start : start + len(block)])
        start += len(block)
