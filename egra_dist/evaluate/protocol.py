"""The evaluation protocol, for vectors and for any other scores.

All items are ranked for every user with a held-out item, training positives masked. One code serves
the ranks that train (each ranks its own users, item tiles are broadcast) and a single process that
reads memory-mapped vectors: they differ in where the tiles come from.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.config import EvaluationSettings
from egra_dist.evaluate.entries import EntriesByItem
from egra_dist.evaluate.ranks import rank_by_scores, rank_by_vectors
from egra_dist.evaluate.report import Evaluation, EvaluationSums
from egra_dist.evaluate.split import HeldOut, Split
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
    device = device or torch.as_tensor(user_vectors[:0]).device
    tiles = partial(local_tiles, item_vectors, settings.item_tile_size, device)
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
    tiles = partial(distributed_tiles, item_vectors, items, settings.item_tile_size, group)
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
    task = _Task.of_users(split, 0, split.training.num_rows, device)
    ranks = rank_by_scores(
        lambda block: score_users(task.users[block]),
        len(task.users),
        task.positives,
        task.seen,
        max(settings.cutoffs),
        settings.user_batch_size,
    )
    return task.sums(split, settings, ranks).result()


def _sums_of_users(
    split: Split,
    user_vectors: Tensor | NDArray,
    first_user: int,
    tiles: Callable[[], Iterable[ItemTile]],
    settings: EvaluationSettings,
    device: torch.device,
) -> EvaluationSums:
    """Sums over a contiguous block of users that starts at ``first_user``."""
    task = _Task.of_users(split, first_user, first_user + len(user_vectors), device)
    vectors = torch.as_tensor(user_vectors[task.users - first_user]).to(device)
    k = max(settings.cutoffs)
    ranks = rank_by_vectors(vectors, tiles, task.positives, task.seen, k, settings.user_batch_size)
    return task.sums(split, settings, ranks)


@dataclass(frozen=True)
class _Task:
    """The part of a split that one process ranks, with a row for each evaluated user."""

    held_out: HeldOut
    users: NDArray[np.int64]
    positives: EntriesByItem
    seen: EntriesByItem

    @classmethod
    def of_users(cls, split: Split, start: int, stop: int, device: torch.device | None) -> "_Task":
        held_out = split.held_out.within(start, stop)
        users, rows = np.unique(held_out.users, return_inverse=True)
        pairs = [(rows, held_out.items), split.seen_by(users)]
        positives, seen = (
            EntriesByItem(*(torch.from_numpy(part).to(device) for part in pair)) for pair in pairs
        )
        return cls(held_out, users, positives, seen)

    def sums(self, split: Split, settings: EvaluationSettings, ranks: Tensor) -> EvaluationSums:
        sums = EvaluationSums(settings.cutoffs, split.slices, ranks.device)
        sums.add(self.held_out.users, self.held_out.items, ranks)
        return sums
