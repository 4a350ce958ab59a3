"""The evaluation protocol, for vectors and for any other scores.

All items are ranked for every user with a held-out item, training positives masked. One code serves
the ranks that train (each ranks its own users, item tiles are broadcast) and a single process that
reads memory-mapped vectors: they differ in where the tiles come from.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.config import EvaluationSettings
from egra_dist.evaluate.ranking import rank_scores, rank_users
from egra_dist.evaluate.report import Evaluation, EvaluationSums
from egra_dist.evaluate.split import Split
from egra_dist.evaluate.tiles import ItemTile, distributed_tiles, local_tiles
from egra_dist.graph.partition import RowPartition


def evaluate_vectors(
    split: Split,
    user_vectors: Tensor | NDArray,
    item_vectors: Tensor | NDArray,
    settings: EvaluationSettings,
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluates vectors, held in memory or memory-mapped, by their inner products.

    Args:
        split: What to evaluate.
        user_vectors: ``[num_users, dim]``.
        item_vectors: ``[num_items, dim]``.
        settings: Cutoffs and block sizes.
        device: Where to compute; where the vectors are when not given.

    Raises:
        FloatingPointError: If a vector is not finite.
    """
    tiles = local_tiles(item_vectors, settings.item_tile_size, device)
    return _sums_of_users(split, user_vectors, 0, tiles, settings, device).result()


def evaluate_partitioned(
    split: Split,
    user_vectors: Tensor,
    item_vectors: Tensor,
    users: RowPartition,
    items: RowPartition,
    settings: EvaluationSettings,
    group: dist.ProcessGroup | None = None,
) -> Evaluation:
    """Evaluates vectors that the ranks of a process group hold in blocks.

    A collective call; every rank gets the same figures, which are those of
    :func:`evaluate_vectors` to the last bit.

    Args:
        split: What to evaluate, the same on every rank.
        user_vectors: ``[users.size(rank), dim]``, this rank's block.
        item_vectors: ``[items.size(rank), dim]``, this rank's block.
        users: Who owns which users.
        items: Who owns which items.
        settings: Cutoffs and block sizes.
        group: Process group; the default one when not given.

    Raises:
        FloatingPointError: If a vector is not finite.
    """
    own = users.block(dist.get_rank(group))
    assert len(user_vectors) == own.stop - own.start, "vectors are not this rank's block"
    tiles = distributed_tiles(item_vectors, items, settings.item_tile_size, group)
    sums = _sums_of_users(split, user_vectors, own.start, tiles, settings, user_vectors.device)
    sums.all_reduce(group)
    return sums.result()


def evaluate_scores(
    split: Split,
    score_users: Callable[[NDArray[np.int64]], Tensor],
    settings: EvaluationSettings,
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluates a model that is no inner product.

    Args:
        split: What to evaluate.
        score_users: Scores ``[num_users, num_items]`` of a block of user numbers.
        settings: Cutoffs and block sizes.
        device: Where the scores are.
    """
    users = split.held_out.users
    ranked = rank_scores(
        lambda block: score_users(users[block]),
        len(users),
        split.seen_by(users, device),
        max(settings.cutoffs),
        settings.user_batch_size,
    )
    sums = EvaluationSums(settings.cutoffs, split.slices, device)
    sums.add(split.held_out, ranked)
    return sums.result()


def _sums_of_users(
    split: Split,
    user_vectors: Tensor | NDArray,
    first_user: int,
    item_tiles: Iterable[ItemTile],
    settings: EvaluationSettings,
    device: torch.device | None,
) -> EvaluationSums:
    """Sums over a contiguous block of users that starts at ``first_user``."""
    held_out = split.held_out.within(first_user, first_user + len(user_vectors))
    vectors = torch.as_tensor(user_vectors[held_out.users - first_user]).to(device)
    device = vectors.device
    seen = split.seen_by(held_out.users, device)
    k = max(settings.cutoffs)
    ranked = rank_users(vectors, item_tiles, seen, k, settings.user_batch_size)
    sums = EvaluationSums(settings.cutoffs, split.slices, device)
    sums.add(held_out, ranked)
    return sums
