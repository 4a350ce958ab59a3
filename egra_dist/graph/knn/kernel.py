"""Exact search in one process: every query against every base row."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.graph.knn.edges import EDGE, as_pairs, merge, no_edges
from egra_dist.graph.knn.join import QUERY_BLOCK, Side, Tile
from egra_dist.graph.knn.scoring import as_base, as_products, as_queries, pair_scores
from egra_dist.graph.knn.settings import Metric

_BASE_BLOCK = 2048
_PAIRS_BEFORE_MERGE = 48


def search(
    queries: Tensor,
    base: Tensor,
    k: int,
    metric: Metric,
    query_ids: Tensor | None = None,
    first_id: int = 0,
) -> NDArray:
    """Nearest base rows of each query.

    Args:
        queries: ``float32 [num_queries, dim]`` prepared rows.
        base: ``float32 [num_base, dim]`` prepared rows.
        k: Neighbours per query.
        metric: Similarity.
        query_ids: ``int64 [num_queries]``; a base row of the same id is not a neighbour.
        first_id: Id of the first base row; the others follow.

    Returns:
        ``EDGE [num_queries, k]``, best first, ties by lower id.
    """
    own = np.full(len(queries), -1) if query_ids is None else query_ids.numpy() - first_id
    searches = [
        _Search(queries[start : start + QUERY_BLOCK], k, metric, own[start : start + QUERY_BLOCK])
        for start in range(0, len(queries), QUERY_BLOCK)
    ]
    base_rows = as_base(base, metric)
    for start in range(0, len(base), _BASE_BLOCK):
        block = base_rows[start : start + _BASE_BLOCK]
        wants_none = torch.full((len(block),), torch.inf)
        tile = Tile(Side(block, wants_none), k + 1)
        for part in searches:
            part.visit(tile, base[start : start + _BASE_BLOCK], start)
    found = np.concatenate([part.finish() for part in searches] or [np.empty((0, k), EDGE)])
    found["id"][found["id"] >= 0] += first_id
    return found


class _Search:
    """A block of queries with the best neighbours seen so far."""

    def __init__(self, queries: Tensor, k: int, metric: Metric, own: NDArray) -> None:
        self._queries = queries
        self._side = Side(as_queries(queries, metric), torch.full((len(queries),), -torch.inf))
        self._metric: Metric = metric
        self._own = own
        self._best = no_edges(len(queries), k)
        self._pairs: list[NDArray] = []

    def visit(self, tile: Tile, base: Tensor, first: int) -> None:
        """Notes the pairs of one block of base rows, which starts at ``first``."""
        rows, columns = tile.pairs(self._side)
        ids = columns + first
        kept = ids != self._own[rows]
        rows, columns, ids = rows[kept], columns[kept], ids[kept]
        one, other = torch.from_numpy(rows), torch.from_numpy(columns)
        scores = pair_scores(self._queries, one, base, other, self._metric)
        self._pairs.append(as_pairs(rows, ids, scores.numpy()))
        if sum(map(len, self._pairs)) > _PAIRS_BEFORE_MERGE * len(self._queries):
            self._merge()

    def finish(self) -> NDArray:
        """``EDGE [num_queries, k]``."""
        self._merge()
        return self._best

    def _merge(self) -> None:
        k = self._best.shape[1]
        self._best = merge(0, self._best, self._pairs, k)
        self._pairs = []
        bounds = torch.from_numpy(self._best["score"][:, -1].copy())
        self._side = Side(self._side.rows, as_products(bounds, self._metric))
