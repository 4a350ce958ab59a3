"""What is to be encoded: a text or an image file for each item of a catalogue or a table."""

from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.files import read_source
from egra_dist.catalog.items import unique_ids
from egra_dist.errors import UserError
from egra_dist.manifest import MANIFEST

Kind = Literal["text", "image"]


@dataclass(frozen=True)
class Contents:
    """One text or image path per item.

    Attributes:
        kind: What the values are.
        ids: Raw item ids.
        id_column: What the user calls them.
        values: Texts or paths as the table has them; null where there is none.
    """

    kind: Kind
    ids: pa.ChunkedArray
    id_column: str
    values: pa.Array

    def __len__(self) -> int:
        return len(self.values)


def read_contents(source: Path, kind: Kind, template: str, id_column: str = "item_id") -> Contents:
    """Reads texts or paths.

    Args:
        source: A catalogue, or a Parquet, CSV or TSV table, or a folder of such.
        kind: What they are.
        template: A column, or a text with columns in braces: ``{title}, by {brand}``.
        id_column: Column of item ids, in a table.

    Raises:
        UserError: If a file cannot be read, a column is absent or not of texts, an id is missing
            or repeated, or there are no items.
    """
    names = columns_of(template)
    if (source / MANIFEST).exists():
        catalog = Catalog.open(source)
        ids = catalog.raw_ids("items")
        id_column = catalog.manifest.settings.get("item_id", id_column)
        columns = {name: _catalog_column(catalog, name) for name in names}
    else:
        table = read_source(source, names, text=(id_column,))
        ids = unique_ids(table, id_column)
        columns = {name: table.table[name] for name in names}
    if not len(ids):
        raise UserError(f"{source}: holds no items")
    texts = {name: _as_text(source, name, column) for name, column in columns.items()}
    return Contents(kind, ids, id_column, _fill(template, texts))


def columns_of(template: str) -> list[str]:
    """Names of the columns in a template; a text without braces is the name of one.

    Raises:
        UserError: If what stands in braces is no name.
    """
    if not any(brace in template for brace in "{}"):
        return [template]
    try:
        fields = [(name, spec, how) for _, name, spec, how in Formatter().parse(template)]
    except ValueError as error:
        raise UserError(f"--text {template!r}: {error}") from None
    names = [name for name, _, _ in fields if name is not None]
    if not all(names) or not names or any(spec or how for _, spec, how in fields):
        raise UserError(f"--text {template!r}: must name columns in braces, such as {{title}}")
    return list(dict.fromkeys(names))


def _catalog_column(catalog: Catalog, name: str) -> pa.ChunkedArray:
    column = catalog.item_column(name)
    if column is None:
        known = pq.read_schema(next((catalog.path / "items").glob("part-*.parquet"))).names
        raise UserError(f"{catalog.path}: items have no column {name!r}; they have {known}")
    return column


def _as_text(source: Path, name: str, column: pa.ChunkedArray) -> pa.Array:
    """A column as texts; null where blank."""
    try:
        texts = column.cast(pa.large_string()).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UserError(f"{source}: column {name!r} is {column.type}, must be texts") from None
    is_blank = pc.equal(pc.utf8_trim_whitespace(texts), "")
    return pc.if_else(pc.fill_null(is_blank, True), pa.scalar(None, pa.large_string()), texts)


def _fill(template: str, columns: dict[str, pa.Array]) -> pa.Array:
    """Texts of the template; null where all of its columns are."""
    if template in columns:
        return columns[template]
    pieces: list[pa.Array | str] = []
    for literal, name, _, _ in Formatter().parse(template):
        pieces.append(literal)
        if name is not None:
            pieces.append(pc.fill_null(columns[name], ""))
    texts = pc.binary_join_element_wise(*(_large(piece) for piece in pieces), _large(""))
    known = [column.is_valid() for column in columns.values()]
    is_known = known[0]
    for other in known[1:]:
        is_known = pc.or_(is_known, other)
    return pc.if_else(is_known, texts, pa.scalar(None, pa.large_string()))


def _large(piece: pa.Array | str) -> pa.Array | pa.Scalar:
    return pa.scalar(piece, pa.large_string()) if isinstance(piece, str) else piece
