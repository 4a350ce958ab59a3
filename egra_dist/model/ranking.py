"""The ranking loss of a batch, over all ranks: BPR, or a softmax over sampled items."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from egra_dist.config import RankingSettings
from egra_dist.model.exchange import rank
from egra_dist.model.gather import gather_rows
from egra_dist.model.losses import bpr, sampled_softmax


class RankingLoss:
    """Tells positives from negatives as the settings say.

    The softmax runs over the distinct items among the batch's positives and its first
    ``num_negatives`` uniform negatives, of all ranks, so that the loss does not depend on their
    number. Candidates that a user has interacted with elsewhere are not taken out.

    Args:
        settings: Which loss.
        counts: Training interactions of every node, by position, ``[num_nodes]``.
        dtype: Type of the softmax's products.
        pool_size: Items that uniform negatives are drawn from; those with an interaction when
            None.
    """

    def __init__(
        self,
        settings: RankingSettings,
        counts: Tensor,
        dtype: torch.dtype | None = None,
        pool_size: int | None = None,
    ) -> None:
        self._settings = settings
        self._dtype = dtype
        self._counts = counts
        self._num_positives = counts.sum()
        self._pool_size = pool_size or int((counts > 0).sum())
        self._num_weighted = (counts**settings.negative_power).sum()

    def __call__(
        self,
        users: Tensor,
        positives: Tensor,
        negatives: Tensor,
        ids: Sequence[tuple[Tensor, Tensor]],
    ) -> Tensor:
        """The sum over this rank's triplets.

        Args:
            users: ``[size, dim]``.
            positives: ``[size, dim]``.
            negatives: ``[size, dim]``.
            ids: For every rank the positions of its positives and of its negatives.
        """
        if self._settings.loss == "bpr":
            return bpr((users * positives).sum(1), (users * negatives).sum(1)).sum()
        taken = _first([len(items) for _, items in ids], self._settings.num_negatives)
        own = [items for items, _ in ids]
        others = [items[:count] for (_, items), count in zip(ids, taken, strict=True)]
        # Of all ranks positives come first: who stands for an item that has several rows (each
        # with other modalities dropped) does not depend on how the batch is shared out.
        first = first_occurrences([*own, *others])
        kept = [torch.cat(pair) for pair in zip(first[: len(ids)], first[len(ids) :], strict=True)]
        pools = [torch.cat(pair) for pair in zip(own, others, strict=True)]
        rows = torch.cat([positives, negatives[: taken[rank()]]])[kept[rank()]]
        candidates = gather_rows(rows, [int(mask.sum()) for mask in kept])
        items = torch.cat([pool[mask] for pool, mask in zip(pools, kept, strict=True)])
        return sampled_softmax(
            users,
            candidates,
            places(ids[rank()][0], items),
            self._log_shares(items, sum(len(own) for own, _ in ids), sum(taken)),
            self._settings.temperature,
            self._dtype,
        ).sum()

    def _log_shares(self, items: Tensor, num_positives: int, num_uniform: int) -> Tensor:
        """Log of the probability that an item is among the candidates, ``[num_candidates]``.

        Draws are taken to be independent: positives by popularity, negatives uniform over
        their pool, or by popularity to some power. (An epoch's batches share nothing, and no
        negative is an item of its user: for batches that are small against the training split
        that changes little.)
        """
        if not self._settings.log_q:
            return torch.zeros(len(items), device=items.device)
        by_popularity = self._counts[items] / self._num_positives
        absent = torch.log1p(-by_popularity) * num_positives
        absent = absent + self._log_absent(items) * num_uniform
        return torch.log(-torch.expm1(absent))

    def _log_absent(self, items: Tensor) -> float | Tensor:
        """Log of the probability that a negative is another item."""
        power = self._settings.negative_power
        if power == 0:
            return math.log1p(-1 / self._pool_size)
        return torch.log1p(-(self._counts[items] ** power) / self._num_weighted)


def _first(sizes: Sequence[int], count: int) -> list[int]:
    """How many of the first ``count`` entries, over all ranks, each rank holds."""
    taken = []
    for size in sizes:
        taken.append(min(size, count))
        count -= taken[-1]
    return taken


def places(ids: Tensor, items: Tensor) -> Tensor:
    """Where each of ``ids`` stands in the distinct ``items``."""
    ordered, order = torch.sort(items)
    return order[torch.searchsorted(ordered, ids)]


def first_occurrences(entities: Sequence[Tensor]) -> list[Tensor]:
    """Masks of the entries that no earlier entry equals, over all ranks.

    Args:
        entities: Each rank's ids, ``int64 [num_entities]``.
    """
    ids = torch.cat(list(entities))
    _, inverse = torch.unique(ids, return_inverse=True)
    places = torch.arange(len(ids), device=ids.device)
    first = torch.full_like(places, len(ids)).scatter_reduce(0, inverse, places, "amin")
    return list((first[inverse] == places).split([len(part) for part in entities]))
