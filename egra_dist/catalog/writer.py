"""Writes catalogues: streamed, whole or absent, the same layout for every reader."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from egra_dist.artifact import writing
from egra_dist.catalog.catalog import KIND, SPLITS, Entities, Split
from egra_dist.errors import UserError
from egra_dist.manifest import MANIFEST, Manifest, digest_of, read_manifest

PART_ROWS = 1 << 24
ROW_GROUP_ROWS = 1 << 20


class CatalogWriter:
    """Writes the parts of a catalogue in any order between parts, ascending within each.

    Use it through :func:`writing_catalog`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: dict[str, Parts] = {}
        self._modalities: dict[str, dict[str, Any]] = {}

    def add_entities(self, entities: Entities, table: pa.Table) -> None:
        """Appends users or items: ``raw_id`` and further columns, in the order of dense indices."""
        self._append(entities, table)

    def add_interactions(
        self,
        split: Split,
        users: NDArray[np.int32],
        items: NDArray[np.int32],
        times: NDArray[np.int64] | None = None,
    ) -> None:
        """Appends interactions, sorted by user, then item; they follow those appended before."""
        columns = {"user": pa.array(users, pa.int32()), "item": pa.array(items, pa.int32())}
        if times is not None:
            columns["time"] = pa.array(times, pa.int64())
        self._append(f"interactions/{split}", pa.table(columns))

    def add_features(
        self,
        modality: str,
        blocks: Iterable[NDArray[Any]],
        present: NDArray[np.bool_],
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes one modality.

        Args:
            modality: Its name.
            blocks: Consecutive blocks of rows ``[*, dim]``, all of one dtype; zero where missing.
            present: ``bool [num_items]``.
            facts: What else the manifest says about it.
        """
        folder = self._folder / "features"
        folder.mkdir(exist_ok=True)
        dim, dtype = write_npy(folder / f"{modality}.npy", blocks, len(present))
        np.save(folder / f"{modality}.present.npy", present)
        self._modalities[modality] = {
            "dim": dim,
            "dtype": str(dtype),
            "num_missing": int(np.count_nonzero(~present)),
            **(facts or {}),
        }

    def counts(self) -> dict[str, Any]:
        """What was written so far, as the manifest says it."""
        rows = {name: parts.num_rows for name, parts in self._parts.items()}
        return {
            "num_users": rows.get("users", 0),
            "num_items": rows.get("items", 0),
            "num_interactions": {split: rows.get(f"interactions/{split}", 0) for split in SPLITS},
            "modalities": self._modalities,
        }

    def _append(self, name: str, table: pa.Table) -> None:
        if name not in self._parts:
            self._parts[name] = Parts(self._folder / name, table.schema)
        self._parts[name].append(table)

    def __enter__(self) -> "CatalogWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for parts in self._parts.values():
            parts.close()


@contextmanager
def writing_catalog(
    out: Path, settings: Mapping[str, Any], inputs: Mapping[str, str]
) -> Iterator[CatalogWriter]:
    """Yields a writer whose catalogue stands at ``out`` when the block succeeds.

    Args:
        out: The catalogue folder. A catalogue there is replaced; anything else is left alone.
        settings: The settings that shape the content.
        inputs: Digests of the files it is made from, by role.

    Raises:
        UserError: If ``out`` holds something that is not a catalogue, or cannot be written.
    """
    check_replaceable(out)
    with writing(out) as partial:
        with CatalogWriter(partial) as writer:
            yield writer
        manifest = Manifest(
            kind=KIND,
            digest=digest_of(KIND, settings, inputs),
            settings=dict(settings),
            inputs=dict(inputs),
            counts=writer.counts(),
        )
        manifest.write(partial)


def check_replaceable(out: Path, kind: str = KIND, noun: str = "catalogue") -> None:
    """Refuses an output path that holds something other than an artifact of this kind.

    Raises:
        UserError: If it is a file, lies below a file, or is a folder that holds anything else.
    """
    for path in (out, *out.parents):
        if path.exists():
            if not path.is_dir():
                raise UserError(f"{out}: cannot be written: {path} is a file, not a folder")
            break
    if out.exists() and any(out.iterdir()):
        if not (out / MANIFEST).exists():
            raise UserError(f"{out}: holds other files and no {noun}; give a new or empty folder")
        read_manifest(out, kind)


class Parts:
    """Parquet files ``part-00000.parquet`` ... of one schema and of about equal size.

    Args:
        folder: Created.
        schema: What is appended.
        rows_per_part: Rows of each file; ``PART_ROWS`` when not given.

    Attributes:
        num_rows: Rows so far.
    """

    def __init__(self, folder: Path, schema: pa.Schema, rows_per_part: int | None = None) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._schema = schema
        self._rows_per_part = rows_per_part or PART_ROWS
        self._num_parts = 0
        self.num_rows = 0
        self._open()

    def append(self, table: pa.Table) -> None:
        """Adds rows."""
        if self._rows_in_part >= self._rows_per_part:
            self._writer.close()
            self._open()
        self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        self._rows_in_part += table.num_rows
        self.num_rows += table.num_rows

    def close(self) -> None:
        """Finishes the last file."""
        self._writer.close()

    def _open(self) -> None:
        # Ascending integers: deltas are several times smaller and faster than a dictionary.
        integers = [field.name for field in self._schema if pa.types.is_integer(field.type)]
        self._writer = pq.ParquetWriter(
            self._folder / f"part-{self._num_parts:05d}.parquet",
            self._schema,
            compression="zstd",
            use_dictionary=False,
            column_encoding=dict.fromkeys(integers, "DELTA_BINARY_PACKED"),
        )
        self._num_parts += 1
        self._rows_in_part = 0


def write_npy(
    path: Path, blocks: Iterable[NDArray[Any]], num_rows: int
) -> tuple[int, np.dtype[Any]]:
    """Writes blocks of rows as one ``.npy``; sequential, so that no page of it stays in memory.

    Returns:
        ``dim`` and the type of the blocks.
    """
    rows_written = 0
    with path.open("wb") as file:
        for block in blocks:
            if rows_written == 0:
                header = np.lib.format.header_data_from_array_1_0(block)
                header["shape"] = (num_rows, block.shape[1])
                header["fortran_order"] = False
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(block).data)
            rows_written += len(block)
            dim, dtype = block.shape[1], block.dtype
    assert rows_written == num_rows, f"{rows_written} feature rows for {num_rows} items"
    return dim, dtype
