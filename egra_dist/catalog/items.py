"""What is known of items besides events: a table of columns, and features by item id."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from egra_dist.catalog.features import find_present, open_npy
from egra_dist.catalog.files import Source, content_digest, list_parts, read_source
from egra_dist.errors import UserError


@dataclass(frozen=True)
class ItemOptions:
    """Where the item table and the features are.

    Attributes:
        table: The item table; None if there is none.
        id_column: Its column of raw item ids, and that of ``feature_ids`` tables.
        features: By modality, a list column of the item table or a ``.npy`` file.
        feature_ids: By modality, the file that names the item of each row of its ``.npy``: a text
            file of one id per line, or a table with ``id_column``. Under ``""`` that of all
            others. Without one the rows are those of the item table.
    """

    table: Path | None = None
    id_column: str = "item_id"
    features: Mapping[str, str] = field(default_factory=dict)
    feature_ids: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class FeatureRows:
    """The features of one modality, by raw item id.

    Attributes:
        values: ``[num_rows, dim]``.
        present: ``bool [num_rows]``.
        ids: Raw item id of each row.
    """

    values: NDArray[Any]
    present: NDArray[np.bool_]
    ids: pa.ChunkedArray


@dataclass(frozen=True)
class ItemData:
    """All that is known of items, by raw id, and what it was read from.

    Attributes:
        ids: Raw ids of the item table's rows.
        columns: Its other columns.
        features: By modality.
        recipe: The options that shape all this.
        digests: Of the files, by role.
    """

    ids: pa.ChunkedArray
    columns: pa.Table
    features: Mapping[str, FeatureRows]
    recipe: Mapping[str, Any]
    digests: Mapping[str, str]


def read_items(options: ItemOptions) -> ItemData:
    """Reads the item table and the features.

    Raises:
        UserError: If a file cannot be read, an id is missing or repeated, or a feature is not a
            finite number.
    """
    source = None
    if options.table is not None:
        source = read_source(options.table, None, text=(options.id_column,))
    digests = {"items": content_digest(source.parts)} if source else {}
    features = {}
    for name, where in options.features.items():
        if not where.endswith(".npy"):
            features[name] = _read_column(source, options.id_column, name, where)
            continue
        ids_path = options.feature_ids.get(name, options.feature_ids.get(""))
        features[name] = _read_npy(source, options.id_column, Path(where), ids_path)
        digests[f"features/{name}"] = content_digest([Path(where)])
        if ids_path is not None:
            digests[f"feature_ids/{name}"] = content_digest(_id_files(ids_path))
    ids, columns = pa.chunked_array([], pa.large_string()), pa.table({})
    if source is not None:
        ids = unique_ids(source, options.id_column)
        columns = _kept_columns(source, options.id_column)
    return ItemData(ids, columns, features, _recipe(options), digests)


def find_rows(wanted: pa.ChunkedArray, ids: pa.ChunkedArray) -> NDArray[np.int64]:
    """Row of each wanted id among ``ids``, -1 where it is not; integers match their digits."""
    if wanted.type != ids.type:
        wanted, ids = wanted.cast(pa.large_string()), ids.cast(pa.large_string())
    rows = pc.index_in(wanted, value_set=ids.combine_chunks())
    return pc.fill_null(rows, -1).to_numpy().astype(np.int64)


def _recipe(options: ItemOptions) -> dict[str, Any]:
    """Where a file lies does not matter, what is in it is in the digests."""
    sources = {
        name: ".npy" if where.endswith(".npy") else where
        for name, where in options.features.items()
    }
    return {"item_id": options.id_column, "features": sources}


def _kept_columns(source: Source, id_column: str) -> pa.Table:
    """The item table's columns but for ids and lists (those are features)."""
    names = [
        column.name
        for column in source.table.schema
        if column.name not in (id_column, "raw_id") and not _is_list(column.type)
    ]
    return source.table.select(names)


def unique_ids(source: Source, name: str) -> pa.ChunkedArray:
    """A column of raw ids, none missing.

    Raises:
        UserError: If one is missing or repeated.
    """
    ids = source.ids(name)
    first = pc.index_in(ids, value_set=ids.combine_chunks()).to_numpy()
    if (repeated := np.flatnonzero(first != np.arange(len(ids)))).size:
        row = int(repeated[0])
        raise source.error(row, f"{name} {ids[row].as_py()!r} was already on row {first[row] + 1}")
    return ids


def _read_column(source: Source | None, id_column: str, name: str, column: str) -> FeatureRows:
    if source is None:
        raise UserError(f"--feature {name}={column}: a column needs the item table, --items FILE")
    if column not in source.table.column_names:
        raise UserError(
            f"{source.path}: no column {column!r}; its columns are {source.table.column_names}"
        )
    values = _matrix_of_lists(source, column)
    present = find_present(values, f"{source.path}: column {column!r}")
    return FeatureRows(values, present, unique_ids(source, id_column))


def _matrix_of_lists(source: Source, column: str) -> NDArray[Any]:
    lists = source.table[column]
    if not _is_list(lists.type):
        raise UserError(
            f"{source.path}: column {column!r} is {lists.type}, must be lists of floats"
        )
    value_type = lists.type.value_type
    if not pa.types.is_floating(value_type):
        value_type = pa.float32()
    try:
        array = lists.cast(pa.large_list(value_type)).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UserError(
            f"{source.path}: column {column!r} is {lists.type}, must be lists of floats"
        ) from None
    is_known = array.is_valid().to_numpy(zero_copy_only=False)
    lengths = pc.list_value_length(array).drop_null().to_numpy()
    dim = int(lengths[0]) if len(lengths) else 0
    if not dim:
        raise UserError(f"{source.path}: column {column!r} holds no list with a value")
    if (wrong := np.flatnonzero(lengths != dim)).size:
        row = int(np.flatnonzero(is_known)[wrong[0]])
        raise source.error(row, f"{column} has {lengths[wrong[0]]} values, the rows before {dim}")
    values = np.zeros((len(array), dim), dtype=value_type.to_pandas_dtype())
    values[is_known] = array.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    return values


def _read_npy(
    source: Source | None, id_column: str, path: Path, ids_path: Path | None
) -> FeatureRows:
    values = open_npy(path)
    if ids_path is not None:
        ids_source = _read_ids(ids_path, id_column)
    elif source is not None:
        ids_source = source
    else:
        raise UserError(f"{path}: which item is a row? give --feature-ids FILE or --items FILE")
    ids = unique_ids(ids_source, id_column)
    if len(ids) != len(values):
        raise UserError(f"{path}: {len(values)} rows, but {ids_source.path} has {len(ids)} ids")
    return FeatureRows(values, find_present(values, str(path)), ids)


def _read_ids(path: Path, id_column: str) -> Source:
    if path.suffix != ".txt":
        return read_source(path, (id_column,), text=(id_column,))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    # Not splitlines: an id may have what Unicode calls a line's end.
    lines = text.removesuffix("\n").split("\n") if text else []
    return Source(path, (path,), (pa.table({id_column: pa.array(lines, pa.string())}),))


def _id_files(path: Path) -> tuple[Path, ...]:
    return (path,) if path.suffix == ".txt" else list_parts(path)


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
