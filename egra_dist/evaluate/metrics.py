"""Ranking metrics as sums of integers, so that no order of summation changes a figure.

Each positive found at some rank adds a term to each metric. Terms are cut to fixed point, and sums
of integers are associative: the means are equal to the last bit for every batch size, item
tile and number of workers.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.config import METRICS

_FRACTION_BITS = 36
"""A user's value of a metric is at most 1, so int64 sums hold at least 2**27 users."""
_SQUARE_SHIFT = 18
"""Squares of values cut to half as many bits fit as well."""
_EXACT_BITS = 80
"""Of a fixed-point number that holds every discount as it is."""
_QUANTILE = 1.96
"""Of the normal distribution, for intervals that hold 95 % of all means."""


class MetricSums:
    """Sums of per-user Recall, NDCG, Precision, MAP and HitRate at several cutoffs.

    Definitions are those of MMRec (``utils/metrics.py``): Recall divides by the number of
    positives; NDCG's ideal list and MAP's divisor have ``min(num_positives, K)`` entries.
    """

    def __init__(self, cutoffs: Sequence[int], device: torch.device | None = None) -> None:
        self.cutoffs = sorted(set(cutoffs))
        self.num_users = 0
        self._sums = torch.zeros(len(METRICS), len(self.cutoffs), dtype=torch.int64, device=device)
        self._squares = torch.zeros_like(self._sums)
        discounts = [1 / math.log2(rank + 2) for rank in range(self.cutoffs[-1])]
        self._discounts = torch.tensor(discounts, dtype=torch.float64, device=device)
        # Sums of whole numbers, so that each is rounded once.
        scaled = (int(math.ldexp(discount, _EXACT_BITS)) for discount in discounts)
        ideal = [total / 2**_EXACT_BITS for total in accumulate(scaled, initial=0)]
        self._ideal_gains = torch.tensor(ideal, dtype=torch.float64, device=device)

    def add(self, users: Tensor, ranks: Tensor) -> None:
        """Adds all positives of some users.

        Args:
            users: ``int64 [num_positives]`` the user of each positive, ascending; any numbers.
            ranks: ``int64 [num_positives]``, 0 for the best item; different within a user, except
                that all ranks beyond the largest cutoff count as not found.
        """
        distinct, num_positives = users.unique_consecutive(return_counts=True)
        self.num_users += len(distinct)
        found = ranks < self.cutoffs[-1]
        users, ranks = _sort_by_rank(users[found], ranks[found], self.cutoffs[-1])
        num_positives = num_positives[torch.searchsorted(distinct, users)]
        num_before = torch.arange(len(users), device=users.device) - torch.searchsorted(
            users, users
        )
        for column, cutoff in enumerate(self.cutoffs):
            inside = ranks < cutoff
            terms = self._terms(cutoff, ranks, num_before, num_positives)[:, inside]
            values = (terms * 2**_FRACTION_BITS).long()
            self._sums[:, column] += values.sum(1)
            self._squares[:, column] += _squares_by_user(values, users[inside])

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Sums over the ranks of ``group``."""
        sums = torch.stack([self._sums, self._squares])
        buffer = torch.cat([sums.flatten(), sums.new_tensor([self.num_users])])
        dist.all_reduce(buffer, group=group)
        self._sums, self._squares = buffer[:-1].view_as(sums)
        self.num_users = int(buffer[-1])

    def means(self) -> dict[str, float]:
        """Means over the users, e.g. ``recall_at_20``; empty when there are no users."""
        if not self.num_users:
            return {}
        return self._named(self._means())

    def margins(self) -> dict[str, float]:
        """Half-widths of 95 % confidence intervals of the means; empty below two users.

        Users count as drawn independently from a population without end: for a sample of a
        large part of all users the intervals are too wide.
        """
        if self.num_users < 2:
            return {}
        scale = 2.0 ** (2 * (_FRACTION_BITS - _SQUARE_SHIFT))
        squares = self._squares.double() / (self.num_users * scale)
        variance = (squares - self._means() ** 2).clamp(min=0)
        return self._named(_QUANTILE * (variance / (self.num_users - 1)).sqrt())

    def _means(self) -> Tensor:
        return self._sums.double() / (self.num_users * 2**_FRACTION_BITS)

    def _named(self, values: Tensor) -> dict[str, float]:
        return {
            f"{name}_at_{cutoff}": float(values[row, column])
            for row, name in enumerate(METRICS)
            for column, cutoff in enumerate(self.cutoffs)
        }

    def _terms(
        self, cutoff: int, ranks: Tensor, num_before: Tensor, num_positives: Tensor
    ) -> Tensor:
        """What each found positive adds: ``float64 [len(METRICS), num_found]``."""
        ideal_length = num_positives.clamp(max=cutoff)
        return torch.stack(
            [
                1 / num_positives.double(),
                self._discounts[ranks] / self._ideal_gains[ideal_length],
                torch.full_like(self._discounts, 1 / cutoff)[ranks],
                (num_before + 1).double() / ((ranks + 1) * ideal_length),
                (num_before == 0).double(),
            ]
        )


def _squares_by_user(values: Tensor, users: Tensor) -> Tensor:
    """Squares of each user's sum of values, summed over the users: ``int64 [len(METRICS)]``."""
    distinct, rows = users.unique_consecutive(return_inverse=True)
    sums = values.new_zeros(len(values), len(distinct)).index_add_(1, rows, values)
    return (sums >> _SQUARE_SHIFT).square().sum(1)


def _sort_by_rank(users: Tensor, ranks: Tensor, k: int) -> tuple[Tensor, Tensor]:
    keys = (users * k + ranks).sort().values
    return keys // k, keys % k
