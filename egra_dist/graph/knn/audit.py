"""How much of the true graph is found, measured on a sample of rows.

The exact neighbours of the sample are computed once. They first say which lists rows must visit: a
pair is found if and only if one of its rows visits the list of the other, so that the recall of any
margin is known before the join runs. Afterwards they judge the graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from egra_dist.graph.knn.edges import merge
from egra_dist.graph.knn.kernel import search
from egra_dist.graph.knn.prepare import PREPARED_FILE
from egra_dist.graph.knn.settings import Metric
from egra_dist.graph.knn.tasks import RowsTask

SAMPLE_FILE = "sample.npy"
_Z_95 = 1.96
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class TruthTask(RowsTask):
    """Exact neighbours of the sampled rows among a range of rows.

    Attributes:
        k: Neighbours per row.
        metric: Similarity.
    """

    k: int
    metric: Metric

    def run(self, folder: Path) -> NDArray:
        """Returns ``EDGE [num_sampled, k]``, ids are prepared rows."""
        rows = np.load(folder / PREPARED_FILE, mmap_mode="r")
        sample = np.load(folder / SAMPLE_FILE)
        return search(
            torch.from_numpy(rows[sample]),
            torch.from_numpy(np.array(rows[self.first : self.last])),
            self.k,
            self.metric,
            query_ids=torch.from_numpy(sample),
            first_id=self.first,
        )


def sample_rows(num_rows: int, size: int, seed: int) -> NDArray[np.int64]:
    """Ascending rows drawn without replacement."""
    generator = np.random.default_rng([seed, 1])
    return np.sort(generator.choice(num_rows, min(size, num_rows), replace=False))


def merge_truth(files: Sequence[Path], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Neighbours and scores of the sample, ``[num_sampled, k]``, from those in each range."""
    edges = merge(0, np.concatenate([np.load(path) for path in files], axis=1), [], k)
    return edges["id"].astype(np.int64), edges["score"]


@dataclass(frozen=True)
class Recall:
    """A recall measured on sampled rows.

    Attributes:
        value: Mean share of a row's true neighbours that are found.
        half_width: Half of its 95 % confidence interval.
        num_rows: Rows sampled.
    """

    value: float
    half_width: float
    num_rows: int

    def as_statistics(self, target: float) -> dict[str, float | int]:
        """The recall as a manifest states it."""
        return {
            "recall": self.value,
            "recall_half_width": self.half_width,
            "recall_rows": self.num_rows,
            "recall_target": target,
        }


def recall_of(scores: NDArray[np.float32], true_scores: NDArray[np.float32]) -> Recall:
    """Recall of the sample's lists; a neighbour that ties with the last true one counts.

    Args:
        scores: ``[num_sampled, k]`` scores found, best first, ``-inf`` for none.
        true_scores: ``[num_sampled, k]`` scores of the exact neighbours.
    """
    exists = np.isfinite(true_scores)
    last = np.where(exists, true_scores, np.inf).min(axis=1, keepdims=True)
    reached = scores >= last - _TOLERANCE * np.abs(last)
    found = (np.isfinite(scores) & reached).sum(axis=1)
    return _recall(np.minimum(found, exists.sum(axis=1)), exists.sum(axis=1))


def _recall(found: NDArray, existing: NDArray) -> Recall:
    shares = found[existing > 0] / existing[existing > 0]
    if not len(shares):
        return Recall(1.0, 0.0, 0)
    error = shares.std() / np.sqrt(len(shares))
    return Recall(float(shares.mean()), float(_Z_95 * error), len(shares))


def recall_by_margin(
    needed: NDArray[np.float32], truth: NDArray[np.int64]
) -> list[tuple[float, Recall]]:
    """Recall that rising margins would have.

    Args:
        needed: ``float32 [num_sampled, k]`` margin that a pair of a sampled row and its true
            neighbour needs.
        truth: ``[num_sampled, k]`` true neighbours, -1 for none.
    """
    exists = truth >= 0
    finite = needed[exists & np.isfinite(needed)]
    if not len(finite):
        return []
    margins = np.unique(np.quantile(finite, np.linspace(0, 1, 401), method="higher"))
    return [
        (float(margin), _recall(((needed <= margin) & exists).sum(1), exists.sum(1)))
        for margin in margins
    ]


def margins_needed(
    probes: NDArray[np.int64],
    gaps: NDArray[np.float32],
    neighbor_probes: NDArray[np.int64],
    neighbor_gaps: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Margin from which on each pair of a sampled row and a neighbour is found.

    Args:
        probes: ``[num_sampled, max_probes]`` lists near the sampled rows, own list first.
        gaps: ``[num_sampled, max_probes]`` how much less each scores than the first.
        neighbor_probes: ``[num_sampled, k, max_probes]`` lists near their neighbours.
        neighbor_gaps: ``[num_sampled, k, max_probes]``.

    Returns:
        ``float32 [num_sampled, k]``; ``inf`` when neither is near the list of the other.
    """
    visits = _gap_of(probes[:, None], gaps[:, None], neighbor_probes[:, :, :1])
    is_visited = _gap_of(neighbor_probes, neighbor_gaps, probes[:, None, :1])
    return np.minimum(visits, is_visited)


def _gap_of(near: NDArray, gaps: NDArray, target: NDArray) -> NDArray[np.float32]:
    """Gap of ``target [..., 1]`` among ``near [..., max_probes]``."""
    return np.where(near == target, gaps, np.float32(np.inf)).min(axis=-1)
