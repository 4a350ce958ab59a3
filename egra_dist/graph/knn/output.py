"""The graph as others read it: Parquet tables of edges, and a sparse matrix."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from egra_dist.graph.csr import Csr
from egra_dist.graph.knn.graph import NO_NEIGHBOR, KnnGraph

_EDGES_PER_FILE = 20_000_000


def write_parquet(graph: KnnGraph, folder: Path, raw_ids: pa.ChunkedArray | None = None) -> int:
    """Writes ``part-00000.parquet``... with columns ``item``, ``neighbor``, ``score``.

    Rows are in the order of items, best neighbour first.

    Args:
        graph: The graph.
        folder: Where to write, created.
        raw_ids: ``[num_rows]`` ids written instead of row numbers.

    Returns:
        Number of edges.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = None if raw_ids is None else raw_ids.combine_chunks()
    rows_per_file = max(1, _EDGES_PER_FILE // graph.k)
    num_edges = 0
    for number, first in enumerate(range(0, max(1, graph.num_rows), rows_per_file)):
        neighbors = graph.neighbors[first : first + rows_per_file]
        exists = neighbors != NO_NEIGHBOR
        items = pa.array((np.nonzero(exists)[0] + first).astype(np.int32))
        ids = pa.array(neighbors[exists])
        table = pa.table(
            {
                "item": items if names is None else names.take(items),
                "neighbor": ids if names is None else names.take(ids),
                "score": pa.array(graph.scores[first : first + rows_per_file][exists]),
            }
        )
        pq.write_table(table, folder / f"part-{number:05d}.parquet")
        num_edges += len(table)
    return num_edges


def to_csr(graph: KnnGraph) -> Csr:
    """The graph as a sparse matrix ``[num_rows, num_rows]`` of scores."""
    exists = graph.neighbors != NO_NEIGHBOR
    degrees = exists.sum(axis=1)
    order = np.argsort(np.where(exists, graph.neighbors, graph.num_rows), axis=1)
    exists = np.take_along_axis(exists, order, axis=1)
    return Csr(
        indptr=np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64),
        indices=np.take_along_axis(graph.neighbors, order, axis=1)[exists],
        values=np.take_along_axis(graph.scores, order, axis=1)[exists],
        num_columns=graph.num_rows,
    )
