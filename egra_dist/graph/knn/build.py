"""Building a graph from start to end."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from egra_dist.graph.knn.expand import expand
from egra_dist.graph.knn.graph import KnnGraph
from egra_dist.graph.knn.kernel import search
from egra_dist.graph.knn.prepare import Prepared, prepare
from egra_dist.graph.knn.scoring import candidate_scores
from egra_dist.graph.knn.settings import KnnSettings

_ROWS_PER_STEP = 8192


class Progress(Protocol):
    """What :class:`egra_dist.tracking.progress.StageProgress` offers."""

    def update(self, done: int, **fields: float | int | str) -> None:
        """Tells how many rows are done."""


def build_knn(
    vectors: NDArray,
    settings: KnnSettings,
    present: NDArray[np.bool_] | None = None,
    workdir: Path | None = None,
    progress: Progress | None = None,
) -> KnnGraph:
    """Finds the nearest other rows of every row.

    A row that is missing, zero or not finite has no neighbours and is nobody's neighbour.

    Args:
        vectors: ``[num_rows, dim]`` of any float type, possibly memory-mapped.
        settings: How many neighbours, by which similarity, found how.
        present: ``bool [num_rows]``; rows that are False have no vector.
        workdir: Folder for intermediate results; a later call with the same input goes on there.
        progress: Is told the number of rows done.

    Raises:
        UserError: If the shapes or types are wrong.
    """
    prepared = prepare(vectors, settings.metric, present, workdir)
    rows = torch.from_numpy(prepared.rows)
    ids, scores = _exact(rows, settings, progress)
    own = torch.arange(len(rows))[:, None]
    own_scores = candidate_scores(rows, rows, own, settings.metric).numpy()[:, 0]
    neighbors, all_scores = expand(ids, scores, own_scores, prepared.duplicates)
    return KnnGraph(neighbors, all_scores, _statistics(prepared, settings, neighbors))


def _exact(
    rows: torch.Tensor, settings: KnnSettings, progress: Progress | None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    ids = np.empty((len(rows), settings.k), np.int32)
    scores = np.empty((len(rows), settings.k), np.float32)
    for start in range(0, len(rows), _ROWS_PER_STEP):
        block = slice(start, start + _ROWS_PER_STEP)
        own = torch.arange(len(rows))[block]
        found, values = search(rows[block], rows, settings.k, settings.metric, own)
        ids[block], scores[block] = found.numpy(), values.numpy()
        if progress:
            progress.update(start + len(found))
    return ids, scores


def _statistics(
    prepared: Prepared, settings: KnnSettings, neighbors: NDArray[np.int32]
) -> dict[str, object]:
    found = neighbors >= 0
    in_degrees = np.bincount(neighbors[found], minlength=len(neighbors))
    return {
        "method": "exact",
        "metric": settings.metric,
        "num_rows": len(neighbors),
        "num_unusable_rows": prepared.num_unusable,
        "num_distinct_rows": len(prepared.rows),
        "num_edges": int(found.sum()),
        "max_in_degree": int(in_degrees.max(initial=0)),
    }
