"""One graph out of several over the same rows, e.g. one per modality."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from egra_dist.errors import UserError
from egra_dist.graph.knn.edges import no_edges
from egra_dist.graph.knn.graph import KnnGraph
from egra_dist.graph.knn.statistics import describe_graph

Combination = Literal["intersection", "union"]
_BLOCK_ROWS = 65_536


def combine(
    tables: Mapping[str, KnnGraph],
    how: Combination,
    k: int,
    weights: Sequence[float] | None = None,
) -> KnnGraph:
    """Combines graphs over the same rows.

    ``union``: the k neighbours of largest weighted sum of scores, where a graph that lacks the
    edge adds nothing. ``intersection`` (as GUME does with modalities): only neighbours that are
    in every graph that has edges for both rows, so that a row that misses one modality is judged
    by the others; the score is the weighted mean over those graphs.

    Args:
        tables: At least one graph, each by the name of its table.
        how: Which edges remain.
        k: Neighbours per row, at most.
        weights: One per graph, of those with 0 nothing counts; all the same when None.

    Returns:
        The graph; under ``tables`` its statistics keep those of each.

    Raises:
        UserError: If the graphs have different numbers of rows, or there is not one weight each,
            0 or more and one of them above.
    """
    weights = [1.0] * len(tables) if weights is None else weights
    sizes = [graph.num_rows for graph in tables.values()]
    if len(set(sizes)) != 1:
        raise UserError(f"vectors: tables of {sizes} rows cannot be combined: one row per item")
    if len(weights) != len(tables):
        raise UserError(f"weights: {len(weights)} for {len(tables)} tables, expected one each")
    if min(weights) < 0 or max(weights) == 0:
        raise UserError(f"weights: {list(weights)}, expected 0 or more, one of them above 0")
    counted = [pair for pair in zip(tables.values(), weights, strict=True) if pair[1] > 0]
    graphs, weights = [graph for graph, _ in counted], [weight for _, weight in counted]
    has_edges = np.array([(graph.neighbors >= 0).any(axis=1) for graph in graphs])
    edges = no_edges(sizes[0], k)
    for first in range(0, sizes[0], _BLOCK_ROWS):
        rows, ids, total, weight, count = _sums(graphs, weights, first)
        if how == "intersection":
            both = has_edges[:, rows + first] & has_edges[:, ids]
            kept = count == both.sum(axis=0)
            rows, ids, total = rows[kept], ids[kept], total[kept] / weight[kept]
        _write_best(edges[first : first + _BLOCK_ROWS], rows, ids, total)
    neighbors, scores = (np.ascontiguousarray(edges[name]) for name in ("id", "score"))
    statistics = {
        "combined": how,
        "k": k,
        **describe_graph(neighbors, num_usable=int(has_edges.any(axis=0).sum())),
        "tables": {name: graph.statistics for name, graph in tables.items()},
    }
    return KnnGraph(neighbors, scores, statistics)


def _sums(
    graphs: Sequence[KnnGraph], weights: Sequence[float], first: int
) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    """Every edge of a block of rows once: row, id, weighted sum, sum of weights, count."""
    num_rows = graphs[0].num_rows
    keys, values, parts = [], [], []
    for graph, weight in zip(graphs, weights, strict=True):
        block = graph.neighbors[first : first + _BLOCK_ROWS]
        exists = block >= 0
        keys.append(np.nonzero(exists)[0] * num_rows + block[exists])
        values.append(weight * graph.scores[first : first + _BLOCK_ROWS][exists].astype(float))
        parts.append(np.full(len(keys[-1]), weight))
    unique, place, count = np.unique(np.concatenate(keys), return_inverse=True, return_counts=True)
    total = np.bincount(place, np.concatenate(values), minlength=len(unique))
    weight_sum = np.bincount(place, np.concatenate(parts), minlength=len(unique))
    return unique // num_rows, unique % num_rows, total, weight_sum, count


def _write_best(edges: NDArray, rows: NDArray, ids: NDArray, scores: NDArray) -> None:
    order = np.lexsort((ids, -scores, rows))
    rows, ids, scores = rows[order], ids[order], scores[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = rank < edges.shape[1]
    edges["id"][rows[kept], rank[kept]] = ids[kept]
    edges["score"][rows[kept], rank[kept]] = scores[kept]
