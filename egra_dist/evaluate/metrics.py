"""Ranking metrics as sums of integers, so that no order of summation changes a figure.

A user's value of a metric is computed from integers by one division and kept in fixed point; sums
of integers are associative. The means are therefore equal to the last bit for every batch size,
item tile and number of workers.
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.config import METRICS

_FRACTION_BITS = 32
"""Per-user values lie in [0, 1]; int64 sums of them hold 2**31 users."""
_GAIN_BITS = 40
"""Fraction bits of one rank's discount or precision; a list of 2**23 ranks fits an int64."""


def find_hits(ranked: Tensor, indptr: Tensor, items: Tensor, num_items: int) -> Tensor:
    """Marks which ranked items are positives.

    Args:
        ranked: ``int64 [num_users, k]`` items, best first; -1 where a list is shorter.
        indptr: ``int64 [num_users + 1]`` extents of each user's positives in ``items``.
        items: ``int64`` positives, ascending within a user.
        num_items: Size of the catalogue.

    Returns:
        ``bool [num_users, k]``.
    """
    if not len(items):
        return torch.zeros_like(ranked, dtype=torch.bool)
    rows = torch.arange(len(ranked), device=ranked.device)
    positive_keys = torch.repeat_interleave(rows, indptr.diff()) * num_items + items
    keys = rows[:, None] * num_items + ranked
    places = torch.searchsorted(positive_keys, keys).clamp_(max=len(items) - 1)
    return (positive_keys[places] == keys) & (ranked >= 0)


class MetricSums:
    """Sums of per-user Recall, NDCG, Precision, MAP and HitRate at several cutoffs.

    Definitions are those of MMRec (``utils/metrics.py``): Recall divides by the number of
    positives; NDCG's ideal list and MAP's divisor have ``min(num_positives, K)`` entries.
    """

    def __init__(self, cutoffs: Sequence[int], device: torch.device | None = None) -> None:
        self.cutoffs = sorted(set(cutoffs))
        self.num_users = 0
        self._sums = torch.zeros(len(METRICS), len(self.cutoffs), dtype=torch.int64, device=device)
        discounts = [round(2**_GAIN_BITS / math.log2(rank + 2)) for rank in range(self.k)]
        self._discounts = torch.tensor(discounts, dtype=torch.int64, device=device)

    @property
    def k(self) -> int:
        """The largest cutoff."""
        return self.cutoffs[-1]

    def add(self, hits: Tensor, num_positives: Tensor) -> None:
        """Adds users; those without a positive are left out.

        Args:
            hits: ``bool [num_users, k]``, best rank first.
            num_positives: ``int64 [num_users]``.
        """
        counted = num_positives > 0
        hits, num_positives = hits[counted].long(), num_positives[counted]
        values = torch.stack([self._at(cutoff, hits, num_positives) for cutoff in self.cutoffs], 1)
        self._sums += (values * 2**_FRACTION_BITS).round_().long().sum(-1)
        self.num_users += len(hits)

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Sums over the ranks of ``group``."""
        buffer = torch.cat([self._sums.flatten(), self._sums.new_tensor([self.num_users])])
        dist.all_reduce(buffer, group=group)
        self._sums = buffer[:-1].view_as(self._sums)
        self.num_users = int(buffer[-1])

    def means(self) -> dict[str, float]:
        """Means over the users, e.g. ``recall_at_20``; empty when there are no users."""
        if not self.num_users:
            return {}
        means = self._sums.double() / (self.num_users * 2**_FRACTION_BITS)
        return {
            f"{name}_at_{cutoff}": float(means[row, column])
            for row, name in enumerate(METRICS)
            for column, cutoff in enumerate(self.cutoffs)
        }

    def _at(self, cutoff: int, hits: Tensor, num_positives: Tensor) -> Tensor:
        """Values at one cutoff: ``float64 [len(METRICS), num_users]``, in METRICS' order."""
        hits = hits[:, :cutoff]
        num_hits = hits.sum(1)
        ideal_length = num_positives.clamp(max=cutoff)
        gain = (hits * self._discounts[:cutoff]).sum(1)
        ideal_gain = self._discounts[:cutoff].cumsum(0)[ideal_length - 1]
        ranks = torch.arange(1, cutoff + 1, device=hits.device)
        precisions = (hits * hits.cumsum(1)).double() / ranks
        precision_sum = (precisions * 2**_GAIN_BITS).round_().long().sum(1)
        return torch.stack(
            [
                num_hits.double() / num_positives,
                gain.double() / ideal_gain,
                num_hits.double() / cutoff,
                precision_sum.double() / (ideal_length * 2**_GAIN_BITS),
                (num_hits > 0).double(),
            ]
        )
