"""Vectors of users and items as an earlier run exported them, keyed by raw id."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Entities
from egra_dist.errors import UserError
from egra_dist.manifest import read_manifest

_BATCH_ROWS = 1 << 16
_ENTITIES: tuple[Entities, ...] = ("users", "items")


def exported_files(folder: Path) -> dict[Entities, list[Path]]:
    """Where an earlier run left its vectors: its folder, or the folder ``export`` in it.

    Returns:
        The parts ``users/*.parquet`` and ``items/*.parquet`` in their order, or the one file
        ``users.parquet`` and ``items.parquet``.

    Raises:
        UserError: If they are not there.
    """
    for place in (folder, folder / "export"):
        files = {entities: _parts(place, entities) for entities in _ENTITIES}
        if all(files.values()):
            return files
    raise UserError(
        f"warm_start = {str(folder)!r}: no vectors of users and items (users/*.parquet and "
        f"items/*.parquet), there or in export/"
    )


def _parts(place: Path, entities: Entities) -> list[Path]:
    whole = place / f"{entities}.parquet"
    return [whole] if whole.is_file() else sorted((place / entities).glob("*.parquet"))


def exported_identity(folder: Path) -> str:
    """Tells an export from others: its digest, or what the files look like where it has none."""
    files = exported_files(folder)
    for place in (folder, folder / "export"):
        try:
            return read_manifest(place, "export").digest
        except UserError:
            continue
    facts = [path.stat() for paths in files.values() for path in paths]
    return ":".join(f"{fact.st_size}-{fact.st_mtime_ns}" for fact in facts)


def read_exported(paths: list[Path], ids: pa.ChunkedArray, rows: NDArray[np.float32]) -> None:
    """Vectors of some ids, and a 1 behind each; other rows stay zeros.

    Args:
        paths: Parquet files with ``raw_id`` and ``vector``.
        ids: ``[num_rows]``.
        rows: ``[num_rows, dim + 1]``, filled in.
    """
    dim = rows.shape[1] - 1
    theirs = pa.chunked_array(
        [chunk for path in paths for chunk in pq.read_table(path, columns=["raw_id"])[0].chunks]
    )
    wanted = ids.cast(pa.string()).combine_chunks()
    found = pc.index_in(theirs.cast(pa.string()), value_set=wanted)
    places, start = pc.fill_null(found, -1).to_numpy().astype(np.int64), 0
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=["vector"]):
                vectors = _vectors(batch["vector"], dim, path)
                own = places[start : start + len(vectors)]
                rows[own[own >= 0], :-1] = vectors[own >= 0]
                rows[own[own >= 0], -1] = 1
                start += len(vectors)


def _vectors(column: pa.Array, dim: int, path: Path) -> NDArray[np.float32]:
    values = column.flatten()
    if len(column) * dim != len(values):
        width = len(values) // max(len(column), 1)
        raise UserError(f"{path}: vectors have {width} columns, the tables have {dim}")
    return values.to_numpy(zero_copy_only=False).reshape(-1, dim)
