"""From a user's table of vectors to rows that a kernel can compare by inner products."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from egra_dist.errors import UserError
from egra_dist.graph.knn.duplicates import Duplicates, find_duplicates, no_duplicates
from egra_dist.graph.knn.settings import Metric

PREPARED_FILE = "prepared.npy"
_BLOCK_ROWS = 65_536
_CENTER_ROWS = 256
_SMALLEST_LENGTH = 1e-12


@dataclass(frozen=True)
class Prepared:
    """Distinct, usable rows.

    Attributes:
        rows: ``float32 [num_distinct, dim]``: unit length for cosine, centred for L2.
        duplicates: How distinct rows stand for the table's rows.
        num_unusable: Rows of the table that are missing, zero or not finite.
    """

    rows: NDArray[np.float32]
    duplicates: Duplicates
    num_unusable: int


def prepare(
    vectors: NDArray,
    metric: Metric,
    present: NDArray[np.bool_] | None,
    workdir: Path | None = None,
    collapse: bool = True,
) -> Prepared:
    """Drops rows that cannot be compared, scales the others and collapses exact duplicates.

    Args:
        vectors: ``[num_rows, dim]`` of any float type, possibly memory-mapped.
        metric: Similarity.
        present: ``bool [num_rows]``; rows that are False have no vector.
        workdir: Where to keep the rows, memory-mapped; in memory when None.
        collapse: Whether equal rows become one.

    Raises:
        UserError: If the shapes do not fit each other or the type is not a float.
    """
    check_vectors(vectors, present)
    usable = _usable_rows(vectors, present)
    target = _allocate((len(usable), vectors.shape[1]), workdir, "usable.npy")
    center = _center(vectors, usable) if metric == "l2" else None
    for start in range(0, len(usable), _BLOCK_ROWS):
        block = _as_float32(vectors, usable[start : start + _BLOCK_ROWS])
        target[start : start + len(block)] = _scaled(block, metric, center)
    find = find_duplicates if collapse else no_duplicates
    duplicates = find(target, usable, len(vectors))
    rows = _distinct(target, duplicates, workdir)
    return Prepared(rows, duplicates, num_unusable=len(vectors) - len(usable))


def check_vectors(vectors: NDArray, present: NDArray[np.bool_] | None) -> None:
    """Raises a UserError if shapes do not fit each other, or the type is not a float."""
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):
        raise UserError(
            f"vectors: shape {vectors.shape} of {vectors.dtype}, expected [rows, dim] of floats"
        )
    if present is not None and present.shape != (len(vectors),):
        raise UserError(f"present: shape {present.shape}, expected ({len(vectors)},)")


def _as_float32(vectors: NDArray, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    contiguous = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
    block = vectors[rows[0] : rows[-1] + 1] if contiguous else vectors[rows]
    return np.asarray(block, dtype=np.float32)


def _usable_rows(vectors: NDArray, present: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Rows that are present, finite and not zero."""
    usable = np.ones(len(vectors), bool) if present is None else np.array(present, bool)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = np.asarray(vectors[start : start + _BLOCK_ROWS], dtype=np.float32)
        largest = np.abs(block).max(axis=1, initial=0.0)
        usable[start : start + len(block)] &= np.isfinite(largest) & (largest > 0)
    return np.flatnonzero(usable)


def _center(vectors: NDArray, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mean of the first rows: about the middle, and the same when rows are appended."""
    if not len(rows):
        return np.zeros(vectors.shape[1], np.float32)
    first = _as_float32(vectors, rows[:_CENTER_ROWS])
    return first.mean(axis=0, dtype=np.float64).astype(np.float32)


def _scaled(
    block: NDArray[np.float32], metric: Metric, center: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    if metric == "cosine":
        lengths = np.sqrt(np.einsum("ij,ij->i", block, block))
        # Squares of tiny or huge entries leave float32's range: divided by the largest entry first.
        odd = np.flatnonzero((lengths < _SMALLEST_LENGTH) | (lengths > 1 / _SMALLEST_LENGTH))
        scaled = block / lengths[:, None]
        if len(odd):
            rows = block[odd] / np.abs(block[odd]).max(axis=1, keepdims=True)
            scaled[odd] = rows / np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
        return scaled
    if center is not None:
        return block - center
    return block


def _distinct(
    usable: NDArray[np.float32], duplicates: Duplicates, workdir: Path | None
) -> NDArray[np.float32]:
    """The representatives, in a file of their own when there is a folder."""
    if duplicates.all_distinct and workdir is None:
        return usable
    if duplicates.all_distinct and isinstance(usable, np.memmap):
        assert workdir is not None
        (workdir / "usable.npy").replace(workdir / PREPARED_FILE)
        return usable
    positions = duplicates.positions
    rows = _allocate((len(positions), usable.shape[1]), workdir, "distinct.npy")
    for start in range(0, len(rows), _BLOCK_ROWS):
        rows[start : start + _BLOCK_ROWS] = usable[positions[start : start + _BLOCK_ROWS]]
    if isinstance(usable, np.memmap):
        assert workdir is not None
        (workdir / "usable.npy").unlink()
        (workdir / "distinct.npy").replace(workdir / PREPARED_FILE)
    return rows


def _allocate(shape: tuple[int, int], workdir: Path | None, name: str) -> NDArray[np.float32]:
    if workdir is None or shape[0] == 0:
        return np.empty(shape, np.float32)
    workdir.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(workdir / name, mode="w+", dtype=np.float32, shape=shape)
