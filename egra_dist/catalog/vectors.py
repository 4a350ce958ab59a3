"""Item vectors that the user brings, keyed by the ids that the user knows."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from egra_dist.catalog.catalog import Catalog, Features
from egra_dist.errors import UserError

_COLUMNS = ("raw_id", "vector")


def own_vectors(catalog: Catalog, path: Path) -> Features:
    """Reads a vector for each item of a catalogue; items without one count as missing.

    Args:
        catalog: Whose items.
        path: Parquet file with columns ``raw_id`` and ``vector``, a list of floats.

    Returns:
        ``float32 [num_items, dim]`` and which of them are there.

    Raises:
        UserError: If the file is not readable, a column is missing, an id stands there twice, the
            vectors differ in length or hold what is not finite, or no item of the catalogue has
            one.
    """
    table = _read(path)
    ids, vectors = table.column("raw_id"), _matrix(table.column("vector").combine_chunks(), path)
    if pc.count_distinct(ids).as_py() < len(ids):
        twice = pc.value_counts(ids).filter(pc.greater(pc.value_counts(ids).field(1), 1))
        raise UserError(f"{path}: raw_id {twice[0]['values'].as_py()!r} stands there twice")
    known = catalog.raw_ids("items")
    places = pc.index_in(known.cast(pa.string()), value_set=ids.cast(pa.string()))
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
        return pq.read_table(path, columns=list(_COLUMNS))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file of item vectors") from None
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable Parquet file: {reason}") from None


def _matrix(column: pa.Array, path: Path) -> np.ndarray:
    """``float32 [num_rows, dim]``."""
    if not pa.types.is_list(column.type) and not pa.types.is_fixed_size_list(column.type):
        raise UserError(f"{path}: column 'vector' is {column.type}, must be a list of floats")
    widths = pc.list_value_length(column)
    low, high = (pc.min_max(widths)[side].as_py() for side in ("min", "max"))
    if low != high or not low or column.null_count:
        raise UserError(f"{path}: vectors have {low} to {high} entries, must have one length")
    try:
        flat = column.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        raise UserError(f"{path}: column 'vector' is {column.type}, must hold floats") from None
    matrix = np.array(flat, dtype=np.float32).reshape(-1, low)
    broken = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(broken):
        raise UserError(f"{path}: row {broken[0]} of 'vector' is not finite")
    return matrix
