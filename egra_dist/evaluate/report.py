"""The figures of one evaluation: over all users, and slice by slice."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.evaluate.metrics import MetricSums
from egra_dist.evaluate.slices import Slice


@dataclass(frozen=True)
class Evaluation:
    """Figures of one split.

    Attributes:
        num_users: Users evaluated, over all ranks.
        metrics: E.g. ``{"recall_at_20": 0.1, ...}``; empty when there are no users.
        slices: The same per slice, with its ``num_users``.
        margins: Half-widths of the metrics' 95 % confidence intervals, by users.
    """

    num_users: int
    metrics: dict[str, float]
    slices: dict[str, dict[str, float]] = field(default_factory=dict)
    margins: dict[str, float] = field(default_factory=dict)


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

    def add(self, users: NDArray[np.int64], items: NDArray[np.int64], ranks: Tensor) -> None:
        """Adds all positives of some users.

        Args:
            users: ``[num_positives]`` user of each positive, ascending.
            items: ``[num_positives]``.
            ranks: ``int64 [num_positives]`` as :mod:`egra_dist.evaluate.ranks` gives them.
        """
        rows = torch.from_numpy(users).to(ranks.device)
        self._overall.add(rows, ranks)
        for part, sums in self._slices:
            inside = torch.from_numpy(part.contains(users, items)).to(ranks.device)
            sums.add(rows[inside], ranks[inside])

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
        overall = self._overall
        return Evaluation(overall.num_users, overall.means(), slices, overall.margins())
