"""The join kernel: which pairs of two sets of rows can still matter.

Every row has a bound: a score that its k-th best neighbour is known to reach. A pair matters only
if its score reaches the bound of one of its two rows. Finding the few pairs that do takes one
vectorised pass over the maxima of groups of scores, several times cheaper than selecting the
largest of each row, and one product serves both directions: ``q`` as a neighbour of ``b`` and
``b`` as a neighbour of ``q``. Where no bound is known, the maxima give one: the k-th largest of
them is reached by k scores.

The product may be rounded: a bound is lowered by the largest error that rounding can make, so that
no pair is lost, and the exact scores of the few pairs found decide.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

QUERY_BLOCK = 512
_LANES = 64
_COLUMNS_PER_GROUP = 16
_GROUPS_PER_NEIGHBOR = 4
_MAX_PAIRS_PER_ROW = 32
_SHAPE_STEP = 256
_FLOAT32_ERROR = 2.0**-20
_BFLOAT16_ERROR = 3 * 2.0**-9  # both factors and the product, each rounded to 8 bits


@dataclass(frozen=True)
class Side:
    """One side of a join.

    Attributes:
        rows: ``float32 [num_rows, dim]`` from :func:`~egra_dist.graph.knn.scoring.as_queries`
            or ``as_base``.
        bounds: ``float32 [num_rows]`` score that a row's k-th best neighbour reaches, in the
            unit of the products; ``-inf`` where nothing is known yet, ``inf`` for a row that
            wants no neighbours.
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
        k: Neighbours per row, a row itself included where it is on both sides: where bounds say
            too little, at least the ``k`` best of each row are found.
        rounded: Whether to multiply in bfloat16; None: where the processor is faster at it.

    Returns:
        ``int64 [num_pairs]`` positions in ``queries`` and in ``base``.
    """
    if not len(queries) or not len(base):
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    tile = Tile(base, k, multiplies_bfloat16_fast() if rounded is None else rounded)
    rows, columns = [], []
    for start in range(0, len(queries), QUERY_BLOCK):
        found = tile.pairs(queries[start : start + QUERY_BLOCK])
        rows.append(found[0] + start)
        columns.append(found[1])
    return torch.cat(rows), torch.cat(columns)


@cache
def multiplies_bfloat16_fast() -> bool:
    """Whether the processor has bfloat16 products."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class Tile:
    """The base side, arranged in groups of columns, and the memory for a block of scores.

    Columns ``c, c + num_groups, c + 2 num_groups...`` are a group: its maximum is then taken over
    whole vector registers. Rows with like bounds share a group, so that one low bound does not
    let a whole group of others through. The memory is written again for every block: fresh pages
    would cost as much as the product.
    """

    def __init__(self, base: Side, k: int, rounded: bool) -> None:
        wanted = max(len(base) / _COLUMNS_PER_GROUP, _GROUPS_PER_NEIGHBOR * k)
        num_groups = _LANES * max(1, round(min(wanted, len(base)) / _LANES))
        self._shape = (-(-len(base) // num_groups), num_groups)
        self._columns = self._columns_of(base.bounds)
        self._rows = base.rows[self._columns]
        self._rounded_rows = _padded(self._rows.bfloat16(), _SHAPE_STEP) if rounded else None
        self._bounds = torch.full((self._shape[0] * num_groups,), torch.inf)
        self._bounds[: len(base)] = base.bounds[self._columns]
        self._is_bounded = bool((base.bounds < torch.inf).any())
        self._largest_norm = float(base.rows.square().sum(1).amax().sqrt())
        self._scores = torch.full((QUERY_BLOCK, len(self._bounds)), -torch.inf)
        self._k = k

    def _columns_of(self, bounds: Tensor) -> Tensor:
        """Base row of each column: rows of ascending bounds fill one group after the other."""
        group_size, num_groups = self._shape
        sizes = torch.full((num_groups,), group_size)
        sizes[num_groups - (group_size * num_groups - len(bounds)) :] -= 1
        group = torch.repeat_interleave(torch.arange(num_groups), sizes)
        member = torch.arange(len(bounds)) - (sizes.cumsum(0) - sizes)[group]
        columns = torch.empty_like(group)
        columns[member * num_groups + group] = torch.argsort(bounds, stable=True)
        return columns

    def pairs(self, queries: Side) -> tuple[Tensor, Tensor]:
        """Pairs of one block of queries: positions in the block and in the base."""
        limit = _MAX_PAIRS_PER_ROW * (len(queries) + len(self._rows)) + self._k * len(queries)
        if self._rounded_rows is not None:
            rows, columns = self._passing(queries, rounded=True)
            if len(rows) <= limit:
                return rows, self._columns[columns]
        rows, columns = self._passing(queries, rounded=False)
        if len(rows) > limit:
            rows, columns = self._passing(queries, rounded=False, tighten=True)
        return rows, self._columns[columns]

    def _passing(
        self, queries: Side, rounded: bool, tighten: bool = False
    ) -> tuple[Tensor, Tensor]:
        error = _BFLOAT16_ERROR if rounded else _FLOAT32_ERROR
        error *= self._largest_norm * float(queries.rows.square().sum(1).amax().sqrt())
        scores = self._products(queries.rows, rounded)
        maxima = scores.unflatten(1, self._shape).amax(1)
        query_bounds, base_bounds = queries.bounds, self._bounds
        if tighten or bool((query_bounds == -torch.inf).any()):
            query_bounds = torch.maximum(query_bounds, self._kth_best(maxima) - error)
        if tighten and self._is_bounded:
            kth = self._kth_best(scores[:, : len(self._rows)].T) - error
            base_bounds = base_bounds.clone()
            base_bounds[: len(kth)] = torch.maximum(base_bounds[: len(kth)], kth)
        return self._above(scores, maxima, query_bounds - error, base_bounds - error)

    def _products(self, queries: Tensor, rounded: bool) -> Tensor:
        scores = self._scores[: len(queries)]
        target = scores[:, : len(self._rows)]
        if rounded:
            assert self._rounded_rows is not None
            products = _padded(queries.bfloat16(), _SHAPE_STEP) @ self._rounded_rows.T
            target.copy_(products[: len(queries), : len(self._rows)])
        else:
            torch.mm(queries, self._rows.T, out=target)
        return scores

    def _kth_best(self, scores: Tensor) -> Tensor:
        if scores.shape[1] < self._k:
            return torch.full((len(scores),), -torch.inf)
        return scores.topk(self._k, dim=1).values[:, -1]

    def _above(
        self, scores: Tensor, maxima: Tensor, query_bounds: Tensor, base_bounds: Tensor
    ) -> tuple[Tensor, Tensor]:
        base_bounds = base_bounds.view(self._shape)
        needed = query_bounds[:, None]
        if self._is_bounded:
            needed = torch.minimum(needed, base_bounds.amin(0))
        rows, groups = (maxima >= needed).nonzero(as_tuple=True)
        values = scores.unflatten(1, self._shape)[rows, :, groups]
        needed = query_bounds[rows, None]
        if self._is_bounded:
            needed = torch.minimum(needed, base_bounds[:, groups].T)
        passes = values >= needed
        passes &= values > -torch.inf
        place, member = passes.nonzero(as_tuple=True)
        return rows[place], groups[place] + member * self._shape[1]


def _padded(rows: Tensor, step: int) -> Tensor:
    """Zero rows appended up to a multiple of ``step``.

    The library compiles code for every shape of a bfloat16 product, and keeps it.
    """
    missing = -len(rows) % step
    return torch.cat([rows, rows.new_zeros(missing, rows.shape[1])]) if missing else rows
