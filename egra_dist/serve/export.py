"""Vectors that leave the house: Parquet with the user's own ids."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog, Entities
from egra_dist.catalog.writer import Parts

_ROWS_PER_BATCH = 1 << 16
_ROWS_PER_PART = 1 << 18


def export_vectors(catalog: Catalog, entities: Entities, vectors: NDArray, folder: Path) -> int:
    """Writes one row per entity: ``raw_id`` and ``vector`` (a fixed-size list of float32).

    Streamed into part files; scores are inner products of a user's and an item's vector.

    Args:
        catalog: Where the raw ids are.
        entities: ``"users"`` or ``"items"``.
        vectors: ``[num_entities, dim]``, possibly memory-mapped.
        folder: Where ``part-00000.parquet`` and its like go; created.

    Returns:
        Rows written.
    """
    dim = vectors.shape[1]
    fields = [("raw_id", catalog.id_type(entities)), ("vector", pa.list_(pa.float32(), dim))]
    schema = pa.schema(fields)
    with closing(Parts(folder, schema, _ROWS_PER_PART)) as parts:
        for ids in catalog.iter_raw_ids(entities, _ROWS_PER_BATCH):
            start = parts.num_rows
            rows = np.ascontiguousarray(vectors[start : start + len(ids)], np.float32)
            values = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), dim)
            parts.append(pa.table([ids, values], schema=schema))
        assert parts.num_rows == len(vectors), "one vector per entity"
        return parts.num_rows
