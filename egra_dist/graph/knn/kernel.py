"""The local kernel: matrix products in cache-sized tiles, and the largest of each row.

Selecting the largest ``c`` of ``n`` scores costs more than computing them when dim is small. The
kernel takes the maximum of groups of columns first, which is one vectorised pass while the tile is
in cache: the ``c`` largest scores all lie in the ``c`` groups with the largest maxima, so that only
those groups are looked at again.
"""

import torch
from torch import Tensor

from egra_dist.graph.knn.scoring import as_base, as_queries, candidate_scores
from egra_dist.graph.knn.settings import Metric

QUERY_BLOCK = 256
_TILE_COLUMNS = 2048
_GROUP = 16
_SPAN_TILES = 16
_TIE_TOLERANCE = 1e-5


def search(
    queries: Tensor,
    base: Tensor,
    k: int,
    metric: Metric,
    query_ids: Tensor | None = None,
    base_ids: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Exact nearest rows of ``base`` for each query.

    Args:
        queries: ``float32 [num_queries, dim]`` prepared rows.
        base: ``float32 [num_base, dim]`` prepared rows.
        k: Neighbours per query.
        metric: Similarity.
        query_ids: ``int64 [num_queries]``; a base row of the same id is not a neighbour.
        base_ids: ``int64 [num_base]`` ascending; ``0..num_base-1`` when None.

    Returns:
        ``int64 [num_queries, k]`` ids, best first, ties by lower id, -1 where there are fewer, and
        ``float32 [num_queries, k]`` scores, ``-inf`` there.
    """
    base_ids = torch.arange(len(base)) if base_ids is None else base_ids
    ids = torch.full((len(queries), k), -1)
    scores = torch.full((len(queries), k), -torch.inf)
    tiles = _Tiles(base, metric)
    for start in range(0, len(queries), QUERY_BLOCK):
        block = slice(start, start + QUERY_BLOCK)
        own = None if query_ids is None else _positions(query_ids[block], base_ids)
        found, values = _search_block(queries[block], tiles, k, metric, own)
        ids[block, : found.shape[1]] = torch.where(found < 0, -1, base_ids[found.clamp(min=0)])
        scores[block, : found.shape[1]] = values
    return ids, scores


def best_first(ids: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best of each row by descending score, ties by lower id; -1 entries last."""
    order = torch.argsort(torch.where(ids < 0, torch.iinfo(ids.dtype).max, ids), dim=1, stable=True)
    ids, scores = ids.gather(1, order), scores.gather(1, order)
    order = torch.argsort(scores, dim=1, descending=True, stable=True)[:, :k]
    return ids.gather(1, order), scores.gather(1, order)


def _positions(query_ids: Tensor, base_ids: Tensor) -> Tensor:
    """Column of each query's own row, -1 when it is not in the base: ``[num_queries]``."""
    if len(base_ids) == 0:
        return torch.full_like(query_ids, -1)
    position = torch.searchsorted(base_ids, query_ids).clamp(max=len(base_ids) - 1)
    return torch.where(base_ids[position] == query_ids, position, -1)


def _search_block(
    queries: Tensor, tiles: "_Tiles", k: int, metric: Metric, own: Tensor | None
) -> tuple[Tensor, Tensor]:
    slack = 6 + k // 4
    base = tiles.base
    positions, rough = tiles.nominate(queries, k + slack, own)
    scores = candidate_scores(queries, base, positions, metric)
    found, values = best_first(positions, scores, k)
    if len(base) > positions.shape[1] and found.shape[1] == k:
        tied = rough[:, -1] >= rough[:, k - 1] - _TIE_TOLERANCE * rough[:, 0].abs()
        for row in tied.nonzero().flatten().tolist():
            excluded = -1 if own is None else int(own[row])
            candidates = _tied_candidates(queries[row : row + 1], tiles, k, excluded)[None]
            score = candidate_scores(queries[row : row + 1], base, candidates, metric)
            found[row], values[row] = (part[0] for part in best_first(candidates, score, k))
    return found, values


class _Tiles:
    """The base in spans of tiles, with the memory that the scores of one span take.

    The memory is written again for every query block: fresh pages would cost as much as the
    matrix product.
    """

    def __init__(self, base: Tensor, metric: Metric) -> None:
        self.base = base
        self.metric = metric
        self.product_base = as_base(base, metric)
        num_tiles = min(_SPAN_TILES, -(-len(base) // _TILE_COLUMNS))
        groups = _TILE_COLUMNS // _GROUP
        self._scores = torch.empty(num_tiles, QUERY_BLOCK, _GROUP, groups)
        self._maxima = torch.empty(num_tiles, QUERY_BLOCK, groups)

    def nominate(self, queries: Tensor, num: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
        """The ``num`` best base rows of each query by matrix product, best first.

        Args:
            queries: ``[num_queries, dim]``, at most ``QUERY_BLOCK``.
            num: Rows nominated per query.
            own: ``[num_queries]`` base row that is not nominated, -1 for none.

        Returns:
            Base rows and scores, ``[num_queries, min(num, num_base)]``; -1 and ``-inf`` for none.
        """
        queries = as_queries(queries, self.metric)
        positions = torch.empty((len(queries), 0), dtype=torch.int64)
        scores = torch.empty((len(queries), 0))
        span = _TILE_COLUMNS * _SPAN_TILES
        for start in range(0, len(self.base), span):
            stop = min(len(self.base), start + span)
            columns, values = self._best_of_span(queries, start, stop, num, own)
            positions = torch.cat([positions, columns + start], 1)
            scores = torch.cat([scores, values], 1)
            scores, order = scores.topk(min(num, scores.shape[1]), dim=1)
            positions = positions.gather(1, order)
        return torch.where(scores == -torch.inf, -1, positions), scores

    def _best_of_span(
        self, queries: Tensor, start: int, stop: int, num: int, own: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        num_tiles = -(-(stop - start) // _TILE_COLUMNS)
        for tile in range(num_tiles):
            first = start + tile * _TILE_COLUMNS
            scores = self._scores[tile, : len(queries)]
            self._score_tile(queries, slice(first, min(stop, first + _TILE_COLUMNS)), own, scores)
            torch.amax(scores, dim=1, out=self._maxima[tile, : len(queries)])
        if num * _GROUP * 2 > stop - start:
            scores = self._scores[:num_tiles, : len(queries)]
            flat = scores.transpose(0, 1).reshape(len(queries), -1)[:, : stop - start]
            values, columns = flat.topk(min(num, stop - start), dim=1)
            return columns, values
        return self._best_of_groups(len(queries), num_tiles, num)

    def _score_tile(self, queries: Tensor, columns: slice, own: Tensor | None, out: Tensor) -> None:
        base, flat = self.product_base[columns], out.flatten(1)
        flat[:, len(base) :] = -torch.inf
        torch.mm(queries, base.T, out=flat[:, : len(base)])
        if own is not None:
            rows = ((own >= columns.start) & (own < columns.stop)).nonzero().flatten()
            flat[rows, own[rows] - columns.start] = -torch.inf

    def _best_of_groups(self, num_queries: int, num_tiles: int, num: int) -> tuple[Tensor, Tensor]:
        groups_per_tile = _TILE_COLUMNS // _GROUP
        maxima = self._maxima[:num_tiles, :num_queries].transpose(0, 1).flatten(1)
        groups = maxima.topk(num, dim=1, sorted=False).indices
        tile, place = groups // groups_per_tile, groups % groups_per_tile
        members = torch.arange(_GROUP) * groups_per_tile
        row = torch.arange(num_queries)[:, None]
        first = (tile * QUERY_BLOCK + row) * _TILE_COLUMNS + place
        entries = (first[:, :, None] + members).flatten()
        values = self._scores.view(-1)[entries].view(num_queries, -1)
        values, best = values.topk(num, dim=1)
        columns = (tile * _TILE_COLUMNS + place)[:, :, None] + members
        return columns.view(num_queries, -1).gather(1, best), values


def _tied_candidates(query: Tensor, tiles: _Tiles, k: int, excluded: int) -> Tensor:
    """Base rows of one query when more of them tie for the last place than were nominated."""
    scores = (tiles.product_base @ as_queries(query, tiles.metric).T).flatten()
    if excluded >= 0:
        scores[excluded] = -torch.inf
    best = scores.topk(k).values
    tolerance = _TIE_TOLERANCE * best[0].abs()
    above = (scores > best[-1] + tolerance).nonzero().flatten()
    tied = ((scores >= best[-1] - tolerance) & (scores <= best[-1] + tolerance)).nonzero().flatten()
    return torch.cat([above, tied[: 4 * k + 64]])
