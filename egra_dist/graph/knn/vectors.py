"""A user's table of vectors: a ``.npy`` file, or a Parquet file or folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from egra_dist.errors import UserError


@dataclass(frozen=True)
class Vectors:
    """A table of vectors.

    Attributes:
        values: ``[num_rows, dim]``, memory-mapped.
        present: ``bool [num_rows]``, or None when every row has a vector.
        raw_ids: ``[num_rows]`` ids of the user, or None when a row's number is its id.
    """

    values: NDArray
    present: NDArray[np.bool_] | None
    raw_ids: pa.ChunkedArray | None


def read_vectors(path: Path, column: str, id_column: str | None, workdir: Path) -> Vectors:
    """Opens a table of vectors.

    Args:
        path: ``.npy`` of floats ``[num_rows, dim]``, or a Parquet file or folder.
        column: Parquet column of vectors: lists of floats; null where there is no vector.
        id_column: Parquet column of ids.
        workdir: Where a Parquet table's vectors are unpacked.

    Raises:
        UserError: If the file is missing, of another kind, or its vectors differ in length.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.suffix == ".npy":
        return _read_npy(path, id_column)
    if path.suffix == ".parquet" or path.is_dir():
        return _read_parquet(path, column, id_column, workdir)
    raise UserError(f"{path}: expected a .npy file, a .parquet file or a folder of them")


def _read_npy(path: Path, id_column: str | None) -> Vectors:
    if id_column is not None:
        raise UserError(f"{path}: a .npy file has no id column {id_column!r}; use Parquet")
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # an arbitrary header raises arbitrary exceptions
        raise UserError(f"{path}: not a readable .npy file: {error}") from None
    present = path.with_name(f"{path.stem}.present.npy")
    return Vectors(values, np.load(present) if present.exists() else None, None)


def _read_parquet(path: Path, column: str, id_column: str | None, workdir: Path) -> Vectors:
    try:
        table = ds.dataset(path, format="parquet")
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: not readable as Parquet: {error}") from None
    for name in (column, id_column):
        if name is not None and name not in table.schema.names:
            raise UserError(f"{path}: no column {name!r}, it has {table.schema.names}")
    num_rows = table.count_rows()
    present = np.ones(num_rows, bool)
    values: Any = None
    first = 0
    for batch in _batches(table, column, path):
        lists = batch.column(0)
        block, exists = _unpack(lists, f"{path}: column {column!r}, row {first}")
        if values is None and len(block):
            values = _target(workdir, path, (num_rows, block.shape[1]), block.dtype)
        if len(block):
            if block.shape[1] != values.shape[1]:
                raise UserError(
                    f"{path}: column {column!r}: a vector of {block.shape[1]} numbers after "
                    f"row {first}, expected {values.shape[1]}"
                )
            values[first : first + len(lists)][exists] = block
        present[first : first + len(lists)] = exists
        first += len(lists)
    if values is None:
        raise UserError(f"{path}: column {column!r} has no vector")
    raw_ids = table.to_table(columns=[id_column]).column(0) if id_column else None
    return Vectors(values, None if present.all() else present, raw_ids)


def _batches(table: ds.Dataset, column: str, path: Path) -> Iterator[pa.RecordBatch]:
    try:
        yield from table.to_batches(columns=[column])
    except pa.ArrowInvalid as error:  # Arrow cannot read back nulls among lists of a fixed size
        raise UserError(
            f"{path}: column {column!r}: not readable: {error}; "
            "vectors that may be null need a list type without a fixed size"
        ) from None


def _target(workdir: Path, path: Path, shape: tuple[int, int], dtype: np.dtype) -> NDArray:
    workdir.mkdir(parents=True, exist_ok=True)
    name = workdir / f"{path.stem}.npy"
    return np.lib.format.open_memmap(name, mode="w+", dtype=dtype, shape=shape)


def _unpack(lists: pa.Array, where: str) -> tuple[NDArray, NDArray[np.bool_]]:
    """Vectors ``[num_present, dim]`` of a column of lists, and which rows have one."""
    kind = lists.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or _is_fixed(kind)):
        raise UserError(f"{where}: type {kind}, expected lists of floats")
    if not pa.types.is_floating(kind.value_type):
        raise UserError(f"{where}: lists of {kind.value_type}, expected floats")
    exists = lists.is_valid().to_numpy(zero_copy_only=False)
    present = lists.filter(lists.is_valid())
    numbers = present.flatten().to_numpy(zero_copy_only=False)
    if not len(present):
        return np.empty((0, 0), numbers.dtype), exists
    lengths = np.array([kind.list_size]) if _is_fixed(kind) else _lengths(present)
    if len(lengths) > 1:
        raise UserError(f"{where}: vectors of {lengths.tolist()} numbers, expected one length")
    return numbers.reshape(len(present), -1), exists


def _is_fixed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))


def _lengths(lists: pa.Array) -> NDArray:
    return np.unique(lists.value_lengths().to_numpy(zero_copy_only=False))
