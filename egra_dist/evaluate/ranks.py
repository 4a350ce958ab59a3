"""Where the positives stand among all items: exact ranks without sorted lists.

Every metric needs only the rank of a user's positives: how many unseen items score higher. So they
are counted, tile by tile, and a positive is dropped as soon as k items are known to beat it. Most
are dropped within a few thousand items, and a user without an open positive is not scored further.

The score of a pair is *defined* by :func:`exact_dot`. The matrix product only tells which scores
are certainly higher or lower than a positive's; pairs within its error bound are scored exactly.
Ranks are thus a function of the vectors alone: batch, tile, number of ranks, device and the
rounding of the matrix product do not show in them.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from torch import Tensor

from egra_dist.evaluate.counting import BeatenCounter
from egra_dist.evaluate.entries import EntriesByItem
from egra_dist.evaluate.inner_product import exact_dot, roundoff
from egra_dist.evaluate.tiles import ItemTile

_WIDTH, _DEVICE_WIDTH = 2048, 65_536
"""Items compared at once: few, to stay in cache and to drop positives early, but on a GPU."""
_MAX_PAIRS = 2**16
"""Positives scored at once."""


def rank_by_vectors(
    user_vectors: Tensor,
    tiles: Callable[[], Iterable[ItemTile]],
    positives: EntriesByItem,
    seen: EntriesByItem,
    k: int,
    user_batch_size: int = 1024,
) -> Tensor:
    """Ranks positives among all items by inner product.

    Args:
        user_vectors: ``[num_users, dim]``.
        tiles: Gives the tiles of all items, ascending; called twice.
        positives: Row of the user vectors (ascending) and item of each positive.
        seen: Items that are not ranked, by row of the user vectors.
        k: Ranks from ``k`` on are not told apart.
        user_batch_size: Users scored at once.

    Returns:
        ``int64 [num_positives]``: the number of unseen items that stand before the positive, 0 for
        the best; ``k`` or more where it is not among the best ``k``.

    Raises:
        FloatingPointError: If a vector is not finite.
    """
    user_vectors = user_vectors.float()
    _check_finite(user_vectors, "row {} of the user vectors")
    counter = BeatenCounter(positives, seen, k)
    _score_positives(counter, user_vectors, tiles(), positives)
    norms = user_vectors.norm(dim=1)
    width = _WIDTH if user_vectors.device.type == "cpu" else _DEVICE_WIDTH
    for start, vectors in (part for tile in tiles() for part in tile.split(width)):
        seen_here = seen.tile(start, start + len(vectors))
        tolerance = norms * (roundoff(vectors) * vectors.norm(dim=1).max())
        for block in _blocks(len(user_vectors), user_batch_size):
            open_positives = counter.open_positives(block)
            if len(open_positives):
                rows = counter.rows_of(open_positives)
                users = user_vectors[rows]
                counter.count(
                    open_positives,
                    users @ vectors.T,
                    tolerance[rows],
                    seen_here.of_rows(block),
                    start,
                    partial(_pair_scores, users, vectors),
                )
    return counter.counts


def rank_by_scores(
    score_block: Callable[[slice], Tensor],
    num_users: int,
    positives: EntriesByItem,
    seen: EntriesByItem,
    k: int,
    user_batch_size: int = 1024,
) -> Tensor:
    """Ranks positives by the scores of any model, which are taken as exact.

    Args:
        score_block: Gives ``[block_size, num_items]`` scores of a range of user rows.
        num_users: Number of user rows.
        positives: User row (ascending) and item of each positive.
        seen: Items that are not ranked, by user row.
        k: Ranks from ``k`` on are not told apart.
        user_batch_size: Users scored at once.

    Returns:
        As :func:`rank_by_vectors`.

    Raises:
        FloatingPointError: If a score is not finite.
    """
    counter = BeatenCounter(positives, seen, k)
    for block in _blocks(num_users, user_batch_size):
        open_positives = counter.open_positives(block)
        if not len(open_positives):
            continue
        scores = score_block(block)
        _check_finite(scores, "row {} of the scores", block.start)
        users = positives.rows[open_positives]
        own = scores[users - block.start, positives.items[open_positives]]
        counter.scores[open_positives] = own.double()
        scores = scores[counter.rows_of(open_positives) - block.start]
        counter.count(
            open_positives,
            scores,
            scores.new_zeros(len(scores)),
            seen.tile(0, scores.shape[1]).of_rows(block),
            0,
            lambda rows, columns: scores[rows, columns].double(),  # noqa: B023 (used at once)
        )
    return counter.counts


def _score_positives(
    counter: BeatenCounter,
    user_vectors: Tensor,
    tiles: Iterable[ItemTile],
    positives: EntriesByItem,
) -> None:
    for start, vectors in tiles:
        _check_finite(vectors, "item {}", start)
        for part in positives.tile(start, start + len(vectors)).split(_MAX_PAIRS):
            scores = exact_dot(user_vectors[part.rows], vectors[part.columns])
            counter.scores[part.ids] = scores


def _pair_scores(users: Tensor, items: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return exact_dot(users[rows], items[columns])


def _blocks(num_rows: int, size: int) -> Iterator[slice]:
    return (slice(begin, min(begin + size, num_rows)) for begin in range(0, num_rows, size))


def _check_finite(vectors: Tensor, name: str, first: int = 0) -> None:
    finite = vectors.isfinite().all(1)
    if not finite.all():
        row = first + int(finite.int().argmin())
        raise FloatingPointError(f"{name.format(row)} is not finite: the model diverged")
