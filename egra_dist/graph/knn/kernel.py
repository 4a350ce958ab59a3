"""The local kernel: matrix products in cache-sized tiles, and the largest of each row.

Selecting the largest ``c`` of ``n`` scores costs more than computing them when dim is small. The
kernel takes the maximum of groups of columns first, which is one vectorised pass while the tile is
in cache: the ``c`` largest scores all lie in the ``c`` groups with the largest maxima, so that only
those groups are looked at again.
"""

import torch
from torch import Tensor

from egra_dist.graph.knn.scoring import offsets_of, pair_scores
from egra_dist.graph.knn.settings import Metric

QUERY_BLOCK = 256
_TILE_COLUMNS = 2048
_GROUP = 32
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
    offsets = offsets_of(base, metric)
    for start in range(0, len(queries), QUERY_BLOCK):
        block = slice(start, start + QUERY_BLOCK)
        own = None if query_ids is None else _positions(query_ids[block], base_ids)
        found, values = _search_block(queries[block], base, offsets, k, metric, own)
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
    queries: Tensor,
    base: Tensor,
    offsets: Tensor | None,
    k: int,
    metric: Metric,
    own: Tensor | None,
) -> tuple[Tensor, Tensor]:
    slack = 6 + k // 4
    positions, rough = _nominate(queries, base, offsets, k + slack, own)
    scores = pair_scores(queries, base, positions, metric)
    found, values = best_first(positions, scores, k)
    if len(base) > positions.shape[1] and found.shape[1] == k:
        tied = rough[:, -1] >= rough[:, k - 1] - _TIE_TOLERANCE * rough[:, 0].abs()
        for row in tied.nonzero().flatten().tolist():
            excluded = -1 if own is None else int(own[row])
            candidates = _tied_candidates(queries[row], base, offsets, k, excluded)
            score = pair_scores(queries[row : row + 1], base, candidates[None], metric)
            found[row], values[row] = (part[0] for part in best_first(candidates[None], score, k))
    return found, values


def _nominate(
    queries: Tensor, base: Tensor, offsets: Tensor | None, num: int, own: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The ``num`` best columns of each row by matrix product, best first."""
    span = _TILE_COLUMNS * _SPAN_TILES
    positions = torch.empty((len(queries), 0), dtype=torch.int64)
    scores = torch.empty((len(queries), 0))
    for start in range(0, len(base), span):
        part = slice(start, start + span)
        part_offsets = None if offsets is None else offsets[part]
        part_own = None if own is None else own - start
        columns, values = _best_columns(queries, base[part], part_offsets, num, part_own)
        positions = torch.cat([positions, columns + start], 1)
        scores = torch.cat([scores, values], 1)
        scores, order = scores.topk(min(num, scores.shape[1]), dim=1)
        positions = positions.gather(1, order)
    return torch.where(scores == -torch.inf, -1, positions), scores


def _best_columns(
    queries: Tensor, base: Tensor, offsets: Tensor | None, num: int, own: Tensor | None
) -> tuple[Tensor, Tensor]:
    num_queries, num_tiles = len(queries), -(-len(base) // _TILE_COLUMNS)
    scores = torch.empty(num_tiles, num_queries, _GROUP, _TILE_COLUMNS // _GROUP)
    maxima = torch.empty(num_queries, num_tiles, _TILE_COLUMNS // _GROUP)
    for tile in range(num_tiles):
        columns = slice(tile * _TILE_COLUMNS, (tile + 1) * _TILE_COLUMNS)
        part_offsets = None if offsets is None else offsets[columns]
        part_own = None if own is None else own - columns.start
        _score_tile(queries, base[columns], part_offsets, part_own, scores[tile].flatten(1))
        torch.amax(scores[tile], dim=1, out=maxima[:, tile])
    if num * _GROUP * 2 > len(base):
        flat = scores.transpose(0, 1).reshape(num_queries, -1)[:, : len(base)]
        values, best = flat.topk(min(num, len(base)), dim=1)
        return best, values
    return _best_of_groups(scores, maxima.flatten(1), num)


def _score_tile(
    queries: Tensor, base: Tensor, offsets: Tensor | None, own: Tensor | None, out: Tensor
) -> None:
    """Scores of one tile into ``out [num_queries, _TILE_COLUMNS]``; ``-inf`` beyond the base."""
    out[:, len(base) :] = -torch.inf
    target = out[:, : len(base)]
    if offsets is None:
        torch.mm(queries, base.T, out=target)
    else:
        torch.addmm(offsets, queries, base.T, out=target)
    if own is not None:
        rows = ((own >= 0) & (own < len(base))).nonzero().flatten()
        target[rows, own[rows]] = -torch.inf


def _best_of_groups(scores: Tensor, maxima: Tensor, num: int) -> tuple[Tensor, Tensor]:
    num_tiles, num_queries, _, groups_per_tile = scores.shape
    groups = maxima.topk(num, dim=1, sorted=False).indices
    tile, place = groups // groups_per_tile, groups % groups_per_tile
    members = torch.arange(_GROUP) * groups_per_tile
    row = torch.arange(num_queries)[:, None]
    first = (tile * num_queries + row) * _TILE_COLUMNS + place
    values = scores.flatten()[(first[:, :, None] + members).flatten()].view(num_queries, -1)
    values, best = values.topk(num, dim=1)
    columns = (tile * _TILE_COLUMNS + place)[:, :, None] + members
    return columns.view(num_queries, -1).gather(1, best), values


def _tied_candidates(
    query: Tensor, base: Tensor, offsets: Tensor | None, k: int, excluded: int
) -> Tensor:
    """Columns of one query when more of them tie for the last place than were nominated."""
    scores = base @ query if offsets is None else base @ query + offsets
    if excluded >= 0:
        scores[excluded] = -torch.inf
    best = scores.topk(k).values
    tolerance = _TIE_TOLERANCE * best[0].abs()
    above = (scores > best[-1] + tolerance).nonzero().flatten()
    tied = ((scores >= best[-1] - tolerance) & (scores <= best[-1] + tolerance)).nonzero().flatten()
    return torch.cat([above, tied[: 4 * k + 64]])
