"""The audit of one build: how far rows must look, and what recall it reached."""

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from egra_dist.graph.knn import cost
from egra_dist.graph.knn.audit import (
    SAMPLE_FILE,
    Recall,
    TruthTask,
    margins_needed,
    merge_truth,
    recall_by_margin,
    recall_of,
    sample_rows,
)
from egra_dist.graph.knn.routing import Reach
from egra_dist.graph.knn.selfjoin import SelfJoin
from egra_dist.graph.knn.tasks import row_ranges, single_threaded

_ROWS_PER_TASK = 65_536
_PAIRS_AT_ONCE = 2000
_SHARE_UNCUT = 0.999


class Auditor:
    """Knows the exact neighbours of a sample of the rows of a join.

    Args:
        join: The join whose result is judged.
        routes: The join on a projection of the same rows that decides who visits which list.
    """

    def __init__(self, join: SelfJoin, routes: SelfJoin | None = None) -> None:
        self._join = join
        self._routes = routes or join
        settings = join.settings
        num_rows, dim = join.rows.shape
        self.sample = sample_rows(num_rows, settings.audit_rows, settings.seed)
        np.save(join.folder / SAMPLE_FILE, self.sample)
        seconds = cost.search_seconds(len(self.sample) * num_rows, dim)
        rest = cost.routed_seconds(num_rows, dim, 6, settings)
        join.meter.expect({"audit": seconds, "within": rest})

    @cached_property
    def truth(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Exact neighbours of the sample and their scores, ``[num_sampled, k]``."""
        join, k = self._join, self._join.settings.k
        tasks = [
            TruthTask(*rows, k, join.settings.metric)
            for rows in row_ranges(len(join.rows), _ROWS_PER_TASK)
        ]
        return merge_truth(join.run("audit", tasks), k)

    def choose_reach(self, choice: cost.Choice) -> tuple[cost.Choice, Reach]:
        """The least reach that has the recall wanted, if it costs less than all pairs."""
        settings = self._join.settings
        if settings.probes:
            return choice, Reach(float("inf"), settings.probes)
        needed, gaps = self._margins()
        recalls = recall_by_margin(needed, self.truth[0])
        enough = [pair for pair in recalls if _is_enough(pair[1], settings.recall)]
        margin, recall = enough[0] if enough else recalls[-1]
        counts = (gaps <= margin).sum(axis=1)
        reach = Reach(max(0.0, margin), int(np.quantile(counts, _SHARE_UNCUT, method="higher")))
        num_rows, dim = self._join.rows.shape
        all_pairs = cost.sweep_seconds(num_rows, dim)
        routed = cost.routed_seconds(num_rows, dim, counts.mean(), settings)
        if settings.method == "auto" and (not enough or routed > all_pairs):
            reason = f"{counts.mean():.1f} lists per row would cost more or miss the recall"
            return cost.Choice("exact", f"{choice.reason}, but {reason}"), reach
        reason = f"{counts.mean():.1f} lists per row have recall {recall.value:.4f} on the sample"
        return cost.Choice("routed", f"{choice.reason}; {reason}"), reach

    def recall(self, scores: NDArray[np.float32]) -> Recall:
        """Recall of the finished graph.

        Args:
            scores: ``[num_rows, k]`` scores of all rows.
        """
        return recall_of(scores[self.sample], self.truth[1])

    def _margins(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Margins that the true pairs need, and the gaps of the sampled rows to their lists."""
        truth = self.truth[0]
        join = self._routes
        router = join.router()
        rows, places = np.unique(np.append(self.sample, truth.ravel()), return_inverse=True)
        with single_threaded():
            wanted = torch.from_numpy(join.rows[np.maximum(rows, 0)])
            lists = router.own_lists(wanted)
            probes, gaps = router.around[lists].numpy(), router.gaps(wanted, lists).numpy()
        own, theirs = places[: len(self.sample)], places[len(self.sample) :].reshape(truth.shape)
        parts = np.array_split(np.arange(len(own)), max(1, truth.size // _PAIRS_AT_ONCE))
        needed = np.concatenate(
            [
                margins_needed(
                    probes[own[part]], gaps[own[part]], probes[theirs[part]], gaps[theirs[part]]
                )
                for part in parts
            ]
        )
        head = np.isin(rows, join.head())
        needed[head[theirs] | head[own][:, None]] = 0
        return needed, gaps[own]


def _is_enough(recall: Recall, target: float) -> bool:
    """Whether the recall is reached at the lower end of its interval."""
    return recall.value - recall.half_width >= target
