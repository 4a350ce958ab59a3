"""The figures of one evaluation: over all users, and slice by slice."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.evaluate.metrics import MetricSums, find_hits
from egra_dist.evaluate.slices import Slice
from egra_dist.evaluate.split import HeldOut


@dataclass(frozen=True)
class Evaluation:
    """Figures of one split.

    Attributes:
        num_users: Users evaluated, over all ranks.
        metrics: E.g. ``{"recall_at_20": 0.1, ...}``; empty when there are no users.
        slices: The same per slice, with its ``num_users``.
    """

    num_users: int
    metrics: dict[str, float]
    slices: dict[str, dict[str, float]] = field(default_factory=dict)


class EvaluationSums:
    """Metric sums of all users and of each slice."""

    def __init__(
        self,
        cutoffs: Sequence[int],
        slices: Sequence[Slice] = (),
        device: torch.device | None = None,
    ) -> None:
        self._overall = MetricSums(cutoffs, device)
        self._slices = [(part, MetricSums(cutoffs, device)) for part in slices]

    def add(self, held_out: HeldOut, ranked: Tensor, batch_size: int = 4096) -> None:
        """Adds ranked lists.

        Args:
            held_out: Users and their positives.
            ranked: ``int64 [num_users, k]``, best first, -1 where a list is shorter.
            batch_size: Users worked on at once.
        """
        for begin in range(0, len(ranked), batch_size):
            rows = slice(begin, min(begin + batch_size, len(ranked)))
            self._add_block(held_out.block(rows), ranked[rows])

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Sums over the ranks of ``group``."""
        for sums in (self._overall, *(sums for _, sums in self._slices)):
            sums.all_reduce(group)

    def result(self) -> Evaluation:
        """The means so far."""
        slices = {
            part.name: {**sums.means(), "num_users": float(sums.num_users)}
            for part, sums in self._slices
        }
        return Evaluation(self._overall.num_users, self._overall.means(), slices)

    def _add_block(self, held_out: HeldOut, ranked: Tensor) -> None:
        indptr = torch.from_numpy(held_out.positives.indptr).to(ranked.device)
        positives = torch.from_numpy(held_out.positives.indices.astype(np.int64)).to(ranked.device)
        num_positives = indptr.diff()
        hits = find_hits(ranked, indptr, positives, held_out.positives.num_columns)
        self._overall.add(hits, num_positives)
        rows = torch.repeat_interleave(num_positives)
        for part, sums in self._slices:
            slice_hits, counts = hits, num_positives
            if part.items is not None:
                inside = torch.from_numpy(part.items).to(ranked.device)
                slice_hits = hits & inside[ranked]
                counts = torch.bincount(rows[inside[positives]], minlength=len(ranked))
            if part.users is not None:
                users = torch.from_numpy(part.users[held_out.users])
                counts = counts * users.to(ranked.device)
            sums.add(slice_hits, counts)
