"""Vectors of users and items as an earlier run exported them, keyed by raw id."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from egra_dist.artifact import read_manifest
from egra_dist.catalog.catalog import Entities
from egra_dist.errors import UserError

_BATCH_ROWS = 1 << 16
_ENTITIES: tuple[Entities, ...] = ("users", "items")


def exported_files(folder: Path) -> dict[Entities, Path]:
    """Where an earlier run left its vectors: its folder, or the folder ``export`` in it.

    Raises:
        UserError: If they are not there.
    """
    folders = [folder, folder / "export"]
    for place in folders:
        files = {entities: place / f"{entities}.parquet" for entities in _ENTITIES}
        if all(path.is_file() for path in files.values()):
            return files
    raise UserError(
        f"warm_start = {str(folder)!r}: no users.parquet and items.parquet, there or in export/"
    )


def exported_identity(folder: Path) -> str:
    """Tells an export from others: its digest, or what the files look like where it has none."""
    users = exported_files(folder)["users"]
    try:
        return read_manifest(users.parent, "export").digest
    except UserError:
        facts = [path.stat() for path in exported_files(folder).values()]
        return ":".join(f"{fact.st_size}-{fact.st_mtime_ns}" for fact in facts)


def read_exported(path: Path, ids: pa.ChunkedArray, rows: NDArray[np.float32]) -> None:
    """Vectors of some ids, and a 1 behind each; other rows stay zeros.

    Args:
        path: Parquet file with ``raw_id`` and ``vector``.
        ids: ``[num_rows]``.
        rows: ``[num_rows, dim + 1]``, filled in.
    """
    with pq.ParquetFile(path) as file:
        theirs = file.read(columns=["raw_id"])["raw_id"].cast(pa.string())
        found = pc.index_in(theirs, value_set=ids.cast(pa.string()).combine_chunks())
        places = pc.fill_null(found, -1).to_numpy().astype(np.int64)
        start, dim = 0, rows.shape[1] - 1
        for batch in file.iter_batches(_BATCH_ROWS, columns=["vector"]):
            column = batch["vector"]
            if len(column) * dim != len(column.flatten()):
                width = len(column.flatten()) // max(len(column), 1)
                raise UserError(f"{path}: vectors have {width} columns, the tables have {dim}")
            own = places[start : start + len(column)]
            vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
            rows[own[own >= 0], :-1] = vectors[own >= 0]
            rows[own[own >= 0], -1] = 1
            start += len(column)
