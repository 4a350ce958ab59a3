"""Input tables: Parquet or CSV, one file or a folder of parts; rows that can be named."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from egra_dist.errors import UserError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")
SUFFIXES = (*_PARQUET, *_DELIMITERS)


@dataclass(frozen=True)
class Source:
    """The rows of one or more files of one schema.

    Attributes:
        path: What the user gave: a file, or a folder of parts.
        parts: The files.
        tables: The rows of each.
    """

    path: Path
    parts: tuple[Path, ...]
    tables: tuple[pa.Table, ...]

    @cached_property
    def table(self) -> pa.Table:
        """All rows."""
        try:
            return pa.concat_tables(self.tables, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise UserError(f"{self.path}: parts differ in columns: {_one_line(error)}") from None

    def locate(self, row: int) -> str:
        """Names a row by its file and position there (the first row is 1)."""
        starts = np.cumsum([0] + [table.num_rows for table in self.tables])
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{self.parts[part]}: row {row - starts[part] + 1}"

    def error(self, row: int, message: str) -> UserError:
        """An error about a row."""
        return UserError(f"{self.locate(row)}: {message}")

    def ids(self, name: str) -> pa.ChunkedArray:
        """A column of raw ids: strings or int64, none missing.

        Raises:
            UserError: If its type is another, or an id is missing.
        """
        column = self.table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if not is_text and not pa.types.is_integer(column.type):
            raise UserError(
                f"{self.path}: column {name!r} is {column.type}, must be strings or integers"
            )
        largest = pc.max(column).as_py() if pa.types.is_uint64(column.type) else None
        if largest is not None and largest >= 2**63:
            row = pc.index(column, pa.scalar(largest, pa.uint64())).as_py()
            raise self.error(row, f"{name} is {largest}, must be below 2^63, or a string")
        missing = pc.equal(column, "") if is_text else pc.is_null(column)
        if (row := pc.index(pc.fill_null(missing, True), True).as_py()) >= 0:
            value = column[row].as_py()
            raise self.error(row, f"{name} is {value!r}, must be an id")
        return column.cast(pa.large_string() if is_text else pa.int64())


def list_parts(path: Path) -> tuple[Path, ...]:
    """The files of a table: the file itself, or those of a folder in the order of their names.

    Raises:
        UserError: If there is none, or its suffix is not that of a table.
    """
    if path.is_dir():
        parts = tuple(sorted(part for part in path.rglob("*") if part.suffix in SUFFIXES))
        if not parts:
            raise UserError(f"{path}: holds no {', '.join(SUFFIXES)} file")
        return parts
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: suffix is {path.suffix!r}, must be one of {list(SUFFIXES)}")
    return (path,)


def read_source(path: Path, columns: Sequence[str] | None, text: Collection[str] = ()) -> Source:
    """Reads a table.

    Args:
        path: A Parquet, CSV or TSV file, or a folder of them.
        columns: The columns to read; all when None.
        text: Columns that are ids: in a CSV file they are read as they stand, so that ``007``
            stays itself.

    Raises:
        UserError: If a file is not readable or lacks a column.
    """
    parts = list_parts(path)
    required = list(dict.fromkeys([*(columns or ()), *text]))
    tables = tuple(_read_part(part, columns, required, text) for part in parts)
    return Source(path, parts, tables)


def _read_part(
    part: Path, columns: Sequence[str] | None, required: list[str], text: Collection[str]
) -> pa.Table:
    wanted = None if columns is None else required
    try:
        if part.suffix in _PARQUET:
            _check_columns(part, pq.read_schema(part).names, required)
            return pq.read_table(part, columns=wanted)
        parse = csv.ParseOptions(delimiter=_DELIMITERS[part.suffix], newlines_in_values=True)
        with csv.open_csv(part, parse_options=parse) as reader:
            _check_columns(part, reader.schema.names, required)
        convert = csv.ConvertOptions(
            include_columns=wanted or [], column_types=dict.fromkeys(text, pa.string())
        )
        return csv.read_csv(part, parse_options=parse, convert_options=convert)
    except UserError:
        raise
    except (pa.ArrowException, ValueError, OSError) as error:
        raise UserError(f"{part}: not a readable table: {_one_line(error)}") from None


def _check_columns(part: Path, found: list[str], required: list[str]) -> None:
    for name in required:
        if name not in found:
            raise UserError(f"{part}: no column {name!r}; its columns are {found}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def content_digest(paths: Sequence[Path]) -> str:
    """Digest of the bytes of files in this order; their names and times do not matter.

    Returns:
        16 hexadecimal digits.

    Raises:
        UserError: If a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()[:16]
