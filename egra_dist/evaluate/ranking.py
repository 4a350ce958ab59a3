"""Exact top-k of all items for many users, in blocks of users and tiles of items.

The score of a pair is *defined* as the float64 sum, in a fixed order, of the exact products of
its float32 vectors, and ties go to the lower item. A fast matrix product only proposes: it yields
an upper bound of each score, the best bounds are scored exactly, and a user whose remaining
bounds do not all fall below the k-th exact score is scored exactly against the whole tile. The
ranking is thus a function of the vectors alone: batch, tile, number of ranks, device and the
matrix product's own rounding do not show in it.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from egra_dist.evaluate.seen import SeenItems
from egra_dist.evaluate.tiles import ItemTile

ExactScores = Callable[[Tensor, Tensor], Tensor]
"""Rows ``[n]`` of the block and columns ``[n, c]`` of the tile -> float64 scores ``[n, c]``."""

_SLACK = 16
"""Candidates beyond k that are scored exactly, so that few users need the whole tile."""
_EXACT_PAIRS = 2**16
"""Pairs held at once when users are scored exactly against a whole tile."""


def rank_users(
    user_vectors: Tensor,
    item_tiles: Iterable[ItemTile],
    seen: SeenItems,
    k: int,
    user_batch_size: int = 1024,
) -> Tensor:
    """Ranks all items for every user by inner product.

    Args:
        user_vectors: ``[num_users, dim]``.
        item_tiles: Tiles of all items, ascending; see :mod:`egra_dist.evaluate.tiles`.
        seen: Items left out, by row of ``user_vectors``.
        k: Length of the lists.
        user_batch_size: Users whose scores of one tile are held at once.

    Returns:
        ``int64 [num_users, k]`` items, best first; -1 where fewer than k items are left.

    Raises:
        FloatingPointError: If a vector is not finite.
    """
    user_vectors = user_vectors.float()
    _check_finite(user_vectors, "row {} of the user vectors")
    bounding_users = with_error_column(user_vectors, roundoff(user_vectors))
    top = TopItems(len(user_vectors), k, user_vectors.device)
    for start, tile in item_tiles:
        vectors = tile.float()
        _check_finite(vectors, "item {}", start)
        bounding_items = with_error_column(vectors, 1.0).T
        seen_rows, seen_columns = seen.tile(start, start + len(vectors))
        for block in _blocks(len(user_vectors), user_batch_size):
            bounds = bounding_users[block] @ bounding_items
            _mask(bounds, block, seen_rows, seen_columns)
            users = user_vectors[block]

            def exact(rows: Tensor, columns: Tensor) -> Tensor:
                return exact_dot(users[rows, None], vectors[columns])  # noqa: B023 (used at once)

            top.update(block, start, bounds, exact)
    return top.items


def rank_scores(
    score_block: Callable[[slice], Tensor],
    num_users: int,
    seen: SeenItems,
    k: int,
    user_batch_size: int = 1024,
) -> Tensor:
    """Ranks items by scores that are computed a block of users at a time.

    Args:
        score_block: Gives ``[block_size, num_items]`` scores of a block of users.
        num_users: Number of users.
        seen: Items left out, by user.
        k: Length of the lists.
        user_batch_size: Users scored at once.

    Returns:
        As :func:`rank_users`.
    """
    top = None
    for block in _blocks(num_users, user_batch_size):
        scores = score_block(block).double()
        if top is None:
            top = TopItems(num_users, k, scores.device)
            seen_rows, seen_columns = seen.tile(0, scores.shape[1])
        bounds = scores.clone()
        _mask(bounds, block, seen_rows, seen_columns)
        top.update(block, 0, bounds, lambda rows, columns: scores[rows].gather(1, columns))  # noqa: B023
    return top.items if top is not None else torch.full((0, k), -1)


class TopItems:
    """The best k items of every user among the tiles seen so far, best first."""

    def __init__(self, num_users: int, k: int, device: torch.device) -> None:
        self.k = k
        self.items = torch.full((num_users, k), -1, device=device)
        self.scores = torch.full((num_users, k), -torch.inf, dtype=torch.float64, device=device)

    def update(self, block: slice, start: int, bounds: Tensor, exact: ExactScores) -> None:
        """Takes one tile in; tiles of a user must come in ascending order.

        Args:
            block: The users.
            start: First item of the tile.
            bounds: ``[num_users_of_block, tile_size]`` upper bounds of the scores; -inf for items
                that must not be ranked.
            exact: Exact scores of chosen pairs.
        """
        num_candidates = min(self.k + _SLACK, bounds.shape[1])
        best, columns = bounds.topk(num_candidates, sorted=False)
        columns, order = columns.sort(dim=1)
        best = best.gather(1, order)
        rows = torch.arange(len(bounds), device=bounds.device)
        scores = _excluding(exact(rows, columns), best)
        items, merged = self._merge(block, rows, start + columns, scores)
        if num_candidates < bounds.shape[1]:
            least = best.amin(1)
            sure = (least < merged[:, -1]) | (least == -torch.inf)
            for row in rows[~sure].split(1 + _EXACT_PAIRS // bounds.shape[1]):
                columns = torch.arange(bounds.shape[1], device=bounds.device).expand(len(row), -1)
                scores = _excluding(exact(row, columns), bounds[row])
                items[row], merged[row] = self._merge(block, row, start + columns, scores)
        self.items[block], self.scores[block] = items, merged

    def _merge(
        self, block: slice, rows: Tensor, items: Tensor, scores: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Best k of the present lists and of higher-numbered items that come in ascending order."""
        items = torch.cat([self.items[block][rows], items], 1)
        scores, order = torch.cat([self.scores[block][rows], scores], 1).sort(
            dim=1, descending=True, stable=True
        )
        return items.gather(1, order)[:, : self.k], scores[:, : self.k]


def exact_dot(left: Tensor, right: Tensor) -> Tensor:
    """Inner products over the last dimension, the same to the last bit wherever computed.

    Products of float32 values are exact in float64, and halves are added elementwise, so that
    neither vector width nor fused multiply-adds nor a library's blocking can change the result.
    """
    products = left.double() * right.double()
    while products.shape[-1] > 1:
        half = products.shape[-1] // 2
        folded = products[..., :half] + products[..., half : 2 * half]
        odd = products[..., 2 * half :]
        products = torch.cat([folded, odd], -1) if odd.shape[-1] else folded
    return products[..., 0]


def roundoff(vectors: Tensor) -> float:
    """Bound of ``|computed - exact| / (|u| |v|)`` of a matrix product of rows like ``vectors``.

    Cauchy-Schwarz applied to the standard bound of an inner product of n terms in any order of
    summation (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), with room for
    the error column itself and its rounding.
    """
    exact_inputs = torch.get_float32_matmul_precision() == "highest"
    tf32 = vectors.is_cuda and torch.backends.cuda.matmul.allow_tf32
    inputs = 0.0 if exact_inputs and not tf32 else 2.0**-7
    return 1.01 * (inputs + (vectors.shape[1] + 4) * 2.0**-24)


def with_error_column(vectors: Tensor, scale: float) -> Tensor:
    """Appends ``scale * norm``, which makes products upper bounds: ``[n, dim + 1]``."""
    return torch.cat([vectors, scale * vectors.norm(dim=1, keepdim=True)], 1)


def _check_finite(vectors: Tensor, name: str, first: int = 0) -> None:
    finite = vectors.isfinite().all(1)
    if not finite.all():
        row = first + int(finite.int().argmin())
        raise FloatingPointError(f"{name.format(row)} is not finite: the model diverged")


def _blocks(num_rows: int, size: int) -> Iterable[slice]:
    return (slice(begin, min(begin + size, num_rows)) for begin in range(0, num_rows, size))


def _mask(bounds: Tensor, block: slice, rows: Tensor, columns: Tensor) -> None:
    extent = torch.searchsorted(rows, rows.new_tensor([block.start, block.stop])).tolist()
    entries = slice(*extent)
    bounds[rows[entries] - block.start, columns[entries]] = -torch.inf


def _excluding(scores: Tensor, bounds: Tensor) -> Tensor:
    return scores.masked_fill(bounds == -torch.inf, -torch.inf)
