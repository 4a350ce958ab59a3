"""The score of a pair of rows, one number however the pair was found.

A matrix product gives the same pair slightly different scores in tiles of different shapes. Tiles
therefore only nominate pairs; every score that is kept or compared across tiles comes from
:func:`pair_scores`, where it depends on nothing but the two rows, in either order.
"""

import torch
from torch import Tensor

from egra_dist.graph.knn.settings import Metric

_BLOCK_NUMBERS = 65_536
"""Few enough to stay in the cache between being gathered and being multiplied."""


def pair_scores(
    queries: Tensor, query_of_pair: Tensor, base: Tensor, base_of_pair: Tensor, metric: Metric
) -> Tensor:
    """Scores of single pairs.

    Args:
        queries: ``float32 [num_queries, dim]`` prepared rows.
        query_of_pair: ``int64 [num_pairs]`` rows of ``queries``.
        base: ``float32 [num_base, dim]`` prepared rows.
        base_of_pair: ``int64 [num_pairs]`` rows of ``base``.
        metric: Similarity; the score of ``l2`` is the negative squared distance.

    Returns:
        ``float32 [num_pairs]``.
    """
    scores = torch.empty(len(query_of_pair), dtype=torch.float32)
    pairs_per_block = max(1, _BLOCK_NUMBERS // queries.shape[1])
    for start in range(0, len(scores), pairs_per_block):
        block = slice(start, start + pairs_per_block)
        one = queries.index_select(0, query_of_pair[block])
        other = base.index_select(0, base_of_pair[block])
        if metric == "l2":
            scores[block] = one.sub_(other).square_().sum(1).neg_()
        else:
            scores[block] = one.mul_(other).sum(1)
    return scores


def as_queries(rows: Tensor, metric: Metric) -> Tensor:
    """Rows whose inner products with :func:`as_base` rows are the score, for ``l2`` half of it.

    ``-|q - b|^2 / 2 = q.b - |q|^2 / 2 - |b|^2 / 2`` is the inner product of ``[q, 1, -|q|^2 / 2]``
    and ``[b, -|b|^2 / 2, 1]``.
    """
    if metric != "l2":
        return rows
    return torch.cat([rows, rows.new_ones(len(rows), 1), _minus_half_square(rows)], 1)


def as_base(rows: Tensor, metric: Metric) -> Tensor:
    """The other side of :func:`as_queries`."""
    if metric != "l2":
        return rows
    return torch.cat([rows, _minus_half_square(rows), rows.new_ones(len(rows), 1)], 1)


def as_products(scores: Tensor, metric: Metric) -> Tensor:
    """Scores in the unit of the inner products of :func:`as_queries` and :func:`as_base`."""
    return scores * 0.5 if metric == "l2" else scores


def _minus_half_square(rows: Tensor) -> Tensor:
    return rows.square().sum(1, keepdim=True).mul_(-0.5)
