"""Item vectors that the user brings, keyed by the ids that the user knows."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog, Features
from egra_dist.errors import UserError

_COLUMNS = ("raw_id", "vector")


def own_vectors(catalog: Catalog, path: Path) -> Features:
    """Reads a vector for each item of a catalogue; items without one count as missing.

    Args:
        catalog: Whose items.
        path: Parquet file with columns ``raw_id`` and ``vector``, a list of floats. Ids are
            compared as text: an integer 7 is the string "7". Ids of no item are passed over.

    Returns:
        ``float32 [num_items, dim]`` and which of them are there.

    Raises:
        UserError: If the file is not readable, a column is missing, an id or a vector is null, an
            id stands there twice, the vectors differ in length or hold what is not finite, or no
            item of the catalogue has one.
    """
    table = _read(path)
    ids, vectors = _ids(table.column("raw_id"), path), _matrix(table.column("vector"), path)
    known = catalog.raw_ids("items")
    places = pc.index_in(known.cast(pa.string()), value_set=ids)
    rows = pc.fill_null(places, -1).to_numpy().astype(np.int64)
    present = rows >= 0
    if not present.any():
        raise UserError(
            f"{path}: none of its {len(ids):,} ids is an item of {catalog.path}; "
            f"there they look like {known[0].as_py()!r}"
        )
    values = vectors[np.maximum(rows, 0)]
    values[~present] = 0
    return Features(values, present)


def _read(path: Path) -> pa.Table:
    try:
        schema = pq.read_schema(path)
        missing = [name for name in _COLUMNS if name not in schema.names]
        if missing:
            raise UserError(f"{path}: no column {missing[0]!r}; it has {schema.names}")
        table = pq.read_table(path, columns=list(_COLUMNS))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file of item vectors") from None
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable Parquet file: {reason}") from None
    if len(table) == 0:
        raise UserError(f"{path}: holds no item vectors")
    for name in _COLUMNS:
        _check_no_null(table.column(name), name, path)
    return table


def _check_no_null(column: pa.ChunkedArray, name: str, path: Path) -> None:
    if column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        raise UserError(f"{path}: row {row} of {name!r} is null")


def _ids(column: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    """The ids as strings, each once."""
    try:
        ids = column.cast(pa.string())
    except pa.ArrowException:
        raise UserError(
            f"{path}: column 'raw_id' is {column.type}, must hold strings or integers"
        ) from None
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise UserError(f"{path}: raw_id {twice[0]['values'].as_py()!r} stands there twice")
    return ids


def _matrix(column: pa.ChunkedArray, path: Path) -> NDArray[np.float32]:
    """``float32 [num_rows, dim]``."""
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise UserError(f"{path}: column 'vector' is {column.type}, must be a list of floats")
    widths = pc.min_max(pc.list_value_length(column))
    low, high = widths["min"].as_py(), widths["max"].as_py()
    if low != high or low == 0:
        raise UserError(f"{path}: vectors have {low} to {high} entries, must have one length")
    matrix = np.empty((len(column), low), dtype=np.float32)
    start = 0
    for chunk in column.chunks:
        matrix[start : start + len(chunk)] = _floats(chunk, path).reshape(-1, low)
        start += len(chunk)
    broken = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(broken):
        raise UserError(f"{path}: row {broken[0]} of 'vector' is not finite")
    return matrix


def _floats(chunk: pa.Array, path: Path) -> NDArray[np.float32]:
    try:
        floats = chunk.flatten().cast(pa.float32())
    except pa.ArrowException:
        raise UserError(f"{path}: column 'vector' is {chunk.type}, must hold floats") from None
    return np.asarray(floats.to_numpy(zero_copy_only=False), dtype=np.float32)
