"""The join kernel: which pairs of two sets of rows can still matter to either side.

Every row has a bound: a score that its k-th best neighbour is known to reach. A pair matters only
if its score reaches the bound of one of its two rows. Finding the few pairs that do takes one
vectorised pass over the maxima of groups of scores, several times cheaper than selecting the
largest of each row, and one product serves both directions: ``q`` as a neighbour of ``b`` and
``b`` as a neighbour of ``q``.

The product may be rounded: a bound is lowered by the largest error that rounding can make, so that
no pair is lost, and the exact scores of the few pairs found decide.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

_QUERY_BLOCK = 512
_LANES = 64
_COLUMNS_PER_GROUP = 16
_MAX_PAIRS_PER_ROW = 32
_FLOAT32_ERROR = 2.0**-20
_BFLOAT16_ERROR = 3 * 2.0**-9  # both factors and the product, each rounded to 8 bits


@dataclass(frozen=True)
class Side:
    """One side of a join.

    Attributes:
        rows: ``float32 [num_rows, dim]`` from :func:`~egra_dist.graph.knn.scoring.as_queries`
            or ``as_base``.
        bounds: ``float32 [num_rows]`` score that a row's k-th best neighbour reaches, in the
            unit of the products; ``-inf`` where nothing is known yet.
    """

    rows: Tensor
    bounds: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice | Tensor) -> "Side":
        return Side(self.rows[part], self.bounds[part])


def join(queries: Side, base: Side, k: int, rounded: bool | None = None) -> tuple[Tensor, Tensor]:
    """Pairs whose score may reach the bound of one of their rows.

    Args:
        queries: One side.
        base: The other side.
        k: Neighbours per row: when bounds say too little, the ``k`` best of each row are taken.
        rounded: Whether to multiply in bfloat16; None: where the processor is faster at it.

    Returns:
        ``int64 [num_pairs]`` positions in ``queries`` and in ``base``.
    """
    if not len(queries) or not len(base):
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    tile = _Tile(base, float(_norms(queries.rows).amax() * _norms(base.rows).amax()), k)
    rounded = multiplies_bfloat16_fast() if rounded is None else rounded
    rows, columns = [], []
    for start in range(0, len(queries), _QUERY_BLOCK):
        found = tile.pairs(queries[start : start + _QUERY_BLOCK], rounded)
        rows.append(found[0] + start)
        columns.append(found[1])
    return torch.cat(rows), torch.cat(columns)


@cache
def multiplies_bfloat16_fast() -> bool:
    """Whether the processor has bfloat16 products."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _norms(rows: Tensor) -> Tensor:
    return rows.square().sum(1).sqrt_()


class _Tile:
    """The base side, arranged in groups of columns, and the memory for a block of scores.

    Columns ``c, c + num_groups, c + 2 num_groups...`` are a group: its maximum is then taken over
    whole vector registers. Rows with like bounds share a group, so that one low bound does not
    let a whole group of others through. The memory is written again for every block: fresh pages
    would cost as much as the product.
    """

    def __init__(self, base: Side, scale: float, k: int) -> None:
        self.num_groups = _LANES * max(1, round(len(base) / (_LANES * _COLUMNS_PER_GROUP)))
        group_size = -(-len(base) // self.num_groups)
        order = torch.argsort(base.bounds, stable=True)
        padding = order[:1].expand(self.num_groups * group_size - len(base))
        order = torch.cat([padding, order])
        self.is_padding = torch.arange(len(order)) < len(padding)
        self.order = order.view(self.num_groups, group_size).T.flatten()
        self.is_padding = self.is_padding.view(self.num_groups, group_size).T.flatten()
        self.rows = base.rows[self.order]
        self.bounds = base.bounds[self.order]
        self.rounded_rows = self.rows.bfloat16()
        self.members = torch.arange(group_size) * self.num_groups
        self.scale = scale
        self.k = k
        self._memory = torch.empty(_QUERY_BLOCK, len(order))

    def pairs(self, queries: Side, rounded: bool) -> tuple[Tensor, Tensor]:
        """Pairs of one block of queries: positions in the block and in the base."""
        limit = _MAX_PAIRS_PER_ROW * (len(queries) + len(self.rows))
        if rounded:
            scores = self._products(queries.rows.bfloat16(), self.rounded_rows)
            slack = _BFLOAT16_ERROR * self.scale
            rows, columns = self._passing(scores, queries.bounds - slack, self.bounds - slack)
            if len(rows) <= limit:
                return self._without_padding(rows, columns)
        scores = self._products(queries.rows, self.rows)
        slack = _FLOAT32_ERROR * self.scale
        rows, columns = self._passing(scores, queries.bounds - slack, self.bounds - slack)
        if len(rows) > limit:
            query_bounds = torch.maximum(queries.bounds, self._kth_best(scores))
            base_bounds = torch.maximum(self.bounds, self._kth_best(scores.T))
            rows, columns = self._passing(scores, query_bounds - slack, base_bounds - slack)
        return self._without_padding(rows, columns)

    def _products(self, queries: Tensor, base: Tensor) -> Tensor:
        scores = self._memory[: len(queries)]
        if queries.dtype == torch.float32:
            return torch.mm(queries, base.T, out=scores)
        return scores.copy_(queries @ base.T)

    def _without_padding(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        kept = ~self.is_padding[columns]
        return rows[kept], self.order[columns[kept]]

    def _kth_best(self, scores: Tensor) -> Tensor:
        # One more than k: a row and its padding copy, or the row itself, take one place.
        if scores.shape[1] <= 2 * self.k:
            return torch.full((len(scores),), -torch.inf)
        return scores.topk(2 * self.k, dim=1).values[:, -1]

    def _passing(
        self, scores: Tensor, query_bounds: Tensor, base_bounds: Tensor
    ) -> tuple[Tensor, Tensor]:
        grouped = scores.unflatten(1, (len(self.members), self.num_groups))
        group_bounds = base_bounds.view(len(self.members), self.num_groups).amin(0)
        needed = torch.minimum(query_bounds[:, None], group_bounds)
        rows, groups = (grouped.amax(1) >= needed).nonzero(as_tuple=True)
        columns = groups[:, None] + self.members
        values = scores.view(-1)[rows[:, None] * scores.shape[1] + columns]
        needed = torch.minimum(query_bounds[rows][:, None], base_bounds[columns])
        pair, member = (values >= needed).nonzero(as_tuple=True)
        return rows[pair], columns[pair, member]
