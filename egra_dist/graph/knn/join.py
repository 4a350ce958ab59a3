"""The join kernel: which pairs of two sets of rows can still matter.

Every row has a bound: a score that its k-th best neighbour is known to reach. A pair matters only
if its score reaches the bound of one of its two rows. Finding the few pairs that do takes two
vectorised comparisons of a tile of scores, several times cheaper than selecting the largest of
each row, and one product serves both directions: ``q`` as a neighbour of ``b`` and ``b`` as a
neighbour of ``q``. A tile also gives bounds itself: of the maxima of groups of its columns, the
k-th largest is reached by k scores.

The product may be rounded: a bound is lowered by the largest error that rounding can make, so that
no pair is lost, and the exact scores of the few pairs found decide.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.cluster.processor import multiplies_bfloat16_fast

QUERY_BLOCK = 512
_GROUP_SIZES = (16, 8, 4, 2, 1)
_GROUPS_PER_NEIGHBOR = 4
_MAX_PAIRS_PER_ROW = 32
_FEW_PAIRS_PER_ROW = 2
_BASE_STEP = 64
_QUERY_STEP = 256
_TILE_SCORES = 2**19
_FLOAT32_ERROR = 2.0**-20
_BFLOAT16_ERROR = 2.0**-9
_LOWEST_KEY, _HIGHEST_KEY = np.int16(-(2**15)), np.int16(2**15 - 1)


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


def join(
    queries: Side, base: Side, k: int, rounded: bool | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs whose score may reach the bound of one of their rows.

    Args:
        queries: One side.
        base: The other side.
        k: Neighbours per row, a row itself included where it is on both sides: of the pairs that
            reach the bound of one row only, those that are not among its ``k`` best may be left
            out.
        rounded: Whether to multiply in bfloat16; None: where the processor is faster at it.

    Returns:
        ``int64 [num_pairs]`` positions in ``queries`` and in ``base``.
    """
    if not len(queries) or not len(base):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    tile = Tile(base, k, rounded)
    step = max(1, _TILE_SCORES // len(base) // _QUERY_STEP) * _QUERY_STEP
    rows, columns = [], []
    for start in range(0, len(queries), step):
        found = tile.pairs(queries[start : start + step])
        rows.append(found[0] + start)
        columns.append(found[1])
    return np.concatenate(rows), np.concatenate(columns)


class Tile:
    """The base side of a join, against which blocks of queries are held.

    Args:
        base: The rows and their bounds.
        k: Neighbours per row.
        rounded: Whether to multiply in bfloat16; None: where the processor is faster at it.
    """

    def __init__(self, base: Side, k: int, rounded: bool | None = None) -> None:
        self._base = base
        self._k = k
        is_rounded = multiplies_bfloat16_fast() if rounded is None else rounded
        self._rounded = _Rounded.of(base.rows, _BASE_STEP) if is_rounded else None
        self._is_bounded = bool((base.bounds < torch.inf).any())

    def pairs(self, queries: Side) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of one block of queries: positions in the block and in the base."""
        limit = _MAX_PAIRS_PER_ROW * (len(queries) + len(self._base)) + self._k * len(queries)
        if self._rounded is not None:
            passes = self._passes_rounded(queries, self._rounded)
            if np.count_nonzero(passes) <= limit:
                return _places(passes)
        scores = queries.rows @ self._base.rows.T
        error = _FLOAT32_ERROR * _largest_norm(queries.rows) * _largest_norm(self._base.rows)
        passes = self._passes(scores, queries.bounds, self._base.bounds, error)
        if self._is_bounded and np.count_nonzero(passes) > limit:
            best = torch.from_numpy(_kth_of_maxima(scores.T.contiguous(), self._k))
            bounds = torch.maximum(self._base.bounds, best - error)
            passes = self._passes(scores, queries.bounds, bounds, error)
        return _places(passes)

    def _passes(
        self, scores: Tensor, query_bounds: Tensor, base_bounds: Tensor, error: float
    ) -> NDArray[np.bool_]:
        """Which ``scores [num_queries, num_base]`` reach a bound."""
        best = torch.from_numpy(_kth_of_maxima(scores, self._k))
        query_bounds = torch.maximum(query_bounds, best - error)
        needed = torch.minimum(query_bounds[:, None], base_bounds[None]) - error
        return (scores >= needed).numpy()

    def _passes_rounded(self, queries: Side, base: "_Rounded") -> NDArray[np.bool_]:
        """The same by rounded scores, compared as 16-bit integers, 32 at a time."""
        rounded = _Rounded.of(queries.rows, _QUERY_STEP)
        error = base.error_with(rounded)
        keys = (rounded.rows @ base.columns)[: len(queries)].view(torch.int16)
        keys[:, len(self._base) :] = int(_LOWEST_KEY)
        base_limits = np.full(keys.shape[1], _HIGHEST_KEY)
        base_limits[: len(self._base)] = _keys_of(self._base.bounds - error)
        bounds = _keys_of(queries.bounds - error)
        if min(bounds.min(), base_limits.min()) >= 0:
            passes = self._reach(keys, bounds, base_limits)
            if np.count_nonzero(passes) <= _FEW_PAIRS_PER_ROW * len(queries):
                return passes  # bounds so close that those of the tile would spare little
        limits = self._limits(keys, bounds, error, above=0)
        if min(limits.min(), base_limits.min()) < 0:
            keys ^= (keys >> 15) & int(_HIGHEST_KEY)  # negative numbers descend: now they ascend
            keys[:, len(self._base) :] = int(_LOWEST_KEY)
            limits = self._limits(keys, bounds, error, above=int(_LOWEST_KEY))
        return self._reach(keys, limits, base_limits)

    def _reach(
        self, keys: Tensor, limits: NDArray[np.int16], base_limits: NDArray[np.int16]
    ) -> NDArray[np.bool_]:
        passes = keys.numpy() >= limits[:, None]
        if self._is_bounded:
            passes |= keys.numpy() >= base_limits
        return passes

    def _limits(
        self, keys: Tensor, bounds: NDArray[np.int16], error: float, above: int
    ) -> NDArray[np.int16]:
        """The bounds of queries, or what the tile itself says where that is more.

        Args:
            keys: ``int16 [num_queries, num_columns]``, ordered as the scores ``above`` that key.
            bounds: ``int16 [num_queries]`` keys of the bounds known.
            error: Largest rounding error of a score.
            above: Lowest key that is no score.
        """
        best = _kth_of_maxima(keys, self._k)
        limits = _keys_of(_scores_of(best) - 2 * error)
        return np.where(best > above, np.maximum(bounds, limits), bounds)


@dataclass(frozen=True)
class _Rounded:
    """Rows rounded to bfloat16, and how far that moves an inner product.

    Attributes:
        rows: ``bfloat16 [padded_rows, dim]``.
        norm: Length of the longest row.
        residual: Length of the longest difference to the row that is rounded.
    """

    rows: Tensor
    norm: float
    residual: float

    @classmethod
    def of(cls, rows: Tensor, step: int) -> "_Rounded":
        """Rounds rows, and appends zeros up to a multiple of ``step``.

        The library compiles code for every shape of a bfloat16 product, and keeps it.
        """
        padded = torch.zeros(-(-len(rows) // step) * step, rows.shape[1], dtype=torch.bfloat16)
        padded[: len(rows)] = rows
        return cls(padded, _largest_norm(rows), _largest_norm(rows - padded[: len(rows)]))

    @cached_property
    def columns(self) -> Tensor:
        """The rows as columns, which are multiplied faster: ``bfloat16 [dim, padded_rows]``."""
        return self.rows.T.contiguous()

    def error_with(self, other: "_Rounded") -> float:
        """Largest error of an inner product of a row here and one there."""
        norm, other_norm = self.norm + self.residual, other.norm + other.residual
        factors = self.residual * other.norm + norm * other.residual
        return factors + (_BFLOAT16_ERROR + _FLOAT32_ERROR) * norm * other_norm


def _largest_norm(rows: Tensor) -> float:
    return float(torch.linalg.vector_norm(rows, dim=1).amax())


def _keys_of(scores: Tensor) -> NDArray[np.int16]:
    """Integers in the order of float32 scores, rounded down to 16 bits."""
    bits = scores.numpy().view(np.int32)
    return ((bits ^ ((bits >> 31) & 0x7FFFFFFF)) >> 16).astype(np.int16)


def _scores_of(keys: NDArray[np.int16]) -> Tensor:
    """The scores that 16-bit keys stand for."""
    bits = (keys ^ ((keys >> 15) & _HIGHEST_KEY)).astype(np.int32) << 16
    return torch.from_numpy(bits).view(torch.float32)


def _kth_of_maxima(values: Tensor, k: int) -> NDArray:
    """A value that ``k`` of each row reach, close to the k-th largest: ``[num_rows]``.

    The k-th largest of the maxima of groups of columns; columns ``c, c + num_groups...`` are a
    group, so that whole vector registers are compared.
    """
    width = values.shape[1]
    size = next(s for s in _GROUP_SIZES if width // s >= _GROUPS_PER_NEIGHBOR * k or s == 1)
    num_groups = width // size
    if num_groups < k:
        lowest = -torch.inf if values.is_floating_point() else int(_LOWEST_KEY)
        return torch.full((len(values),), lowest, dtype=values.dtype).numpy()
    maxima = values[:, : num_groups * size].unflatten(1, (size, num_groups)).amax(1).numpy()
    return np.partition(maxima, num_groups - k, axis=1)[:, num_groups - k]


def _places(passes: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of what is true."""
    return np.divmod(np.flatnonzero(passes), passes.shape[1])
