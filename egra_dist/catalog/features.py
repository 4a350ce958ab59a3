"""Feature matrices as they come: checked row by row, reordered block by block."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egra_dist.errors import UserError

BLOCK_ROWS = 1 << 14
_WRITTEN_AS = {"float16": np.float16, "float32": np.float32, "float64": np.float32}


def open_npy(path: Path) -> NDArray[Any]:
    """Opens a feature matrix ``[num_rows, dim]`` memory-mapped.

    Raises:
        UserError: If it is not a readable ``.npy`` of a matrix of floats.
    """
    try:
        values = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise UserError(f"{path}: no such feature file") from None
    except (OSError, ValueError, EOFError) as error:
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
    for start, block in _blocks(values):
        finite = np.isfinite(block)
        if not finite.all():
            row, column = (int(index[0]) for index in np.nonzero(~finite))
            value = values[start + row, column]
            raise UserError(
                f"{source}: row {start + row}, column {column} is {value}, must be finite "
                f"(mark a missing modality by a row of zeros)"
            )
        present[start : start + len(block)] = block.any(axis=1)
    return present


def gather_blocks(values: NDArray[Any], rows: NDArray[np.integer]) -> Iterator[NDArray[Any]]:
    """Blocks of ``values[rows]`` in the type that is written; zeros where a row is -1."""
    for start in range(0, len(rows), BLOCK_ROWS):
        wanted = rows[start : start + BLOCK_ROWS]
        block = values[np.maximum(wanted, 0)].astype(_WRITTEN_AS[str(values.dtype)], copy=False)
        block[wanted < 0] = 0
        yield block


def _blocks(values: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    written_as = _WRITTEN_AS[str(values.dtype)]
    for start in range(0, len(values), BLOCK_ROWS):
        with np.errstate(over="ignore"):
            yield start, values[start : start + BLOCK_ROWS].astype(written_as, copy=False)
