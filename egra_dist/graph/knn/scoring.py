"""The score of a pair of rows, one number however the pair was found.

A matrix product gives the same pair slightly different scores in tiles of different shapes. Tiles
therefore only nominate candidates; every score that is kept or compared across tiles comes from
here, where it depends on nothing but the two rows (and is the same for (a, b) and (b, a)).
"""

import torch
from torch import Tensor

from egra_dist.graph.knn.settings import Metric

_BLOCK_NUMBERS = 4_000_000


def pair_scores(queries: Tensor, base: Tensor, candidates: Tensor, metric: Metric) -> Tensor:
    """Scores of each query with its own candidates.

    Args:
        queries: ``float32 [num_queries, dim]`` prepared rows.
        base: ``float32 [num_base, dim]`` prepared rows.
        candidates: ``int64 [num_queries, num_candidates]`` rows of ``base``, -1 for none.
        metric: Similarity; the score of ``l2`` is the negative squared distance.

    Returns:
        ``float32 [num_queries, num_candidates]``, ``-inf`` where there is no candidate.
    """
    scores = torch.empty(candidates.shape, dtype=torch.float32)
    rows_per_block = max(1, _BLOCK_NUMBERS // max(1, candidates.shape[1] * queries.shape[1]))
    for start in range(0, len(queries), rows_per_block):
        block = slice(start, start + rows_per_block)
        ids = candidates[block].clamp(min=0)
        others = base.index_select(0, ids.flatten()).view(*ids.shape, -1)
        own = queries[block, None, :]
        if metric == "l2":
            scores[block] = others.sub_(own).square_().sum(-1).neg_()
        else:
            scores[block] = others.mul_(own).sum(-1)
    return scores.masked_fill_(candidates < 0, -torch.inf)


def offsets_of(base: Tensor, metric: Metric) -> Tensor | None:
    """What is added to an inner product so that it ranks a query's candidates: ``[num_base]``.

    ``-|q - b|^2 = 2 (q.b - |b|^2 / 2) - |q|^2``, whose last term is the same for all candidates.
    """
    return base.square().sum(1).mul_(-0.5) if metric == "l2" else None
