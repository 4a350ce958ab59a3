"""Vectors that leave the house: Parquet with the user's own ids."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog, Entities

_ROWS_PER_GROUP = 65536


def export_vectors(catalog: Catalog, entities: Entities, vectors: NDArray, path: Path) -> int:
    """Writes one row per entity: ``raw_id`` and ``vector`` (a fixed-size list of float32).

    Streamed by row groups; scores are inner products of a user's and an item's vector.

    Args:
        catalog: Where the raw ids are.
        entities: ``"users"`` or ``"items"``.
        vectors: ``[num_entities, dim]``, possibly memory-mapped.
        path: The Parquet file.

    Returns:
        Rows written.
    """
    raw_ids = catalog.raw_ids(entities)
    assert len(raw_ids) == len(vectors), "one vector per entity"
    dim = vectors.shape[1]
    schema = pa.schema([("raw_id", raw_ids.type), ("vector", pa.list_(pa.float32(), dim))])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(vectors), _ROWS_PER_GROUP):
            rows = np.ascontiguousarray(vectors[start : start + _ROWS_PER_GROUP], np.float32)
            values = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), dim)
            ids = raw_ids.slice(start, len(rows)).combine_chunks()
            writer.write_table(pa.table([ids, values], schema=schema))
    return len(vectors)
