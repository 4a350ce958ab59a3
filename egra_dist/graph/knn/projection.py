"""Wide vectors: joined on their principal directions, scored in full width.

A product of 4,096 wide rows costs 20 times one of 192. The projection keeps most of every inner
product (of all directions, the principal ones keep the most), so that the true neighbours are
among a few times k candidates; which of them they are is decided in full width.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from egra_dist.graph.knn.edges import as_pairs, merge, no_edges
from egra_dist.graph.knn.prepare import PREPARED_FILE
from egra_dist.graph.knn.scoring import pair_scores
from egra_dist.graph.knn.selfjoin import ROWS_PER_TASK, SelfJoin
from egra_dist.graph.knn.settings import Metric
from egra_dist.graph.knn.tasks import RowsTask, row_ranges, single_threaded

PROJECTED_DIM = 192
_SAMPLE_ROWS = 8192
_POWER_ITERATIONS = 2
_MOST_CANDIDATES = 200


def principal_directions(rows: NDArray[np.float32], dim: int, seed: int) -> torch.Tensor:
    """``float32 [row_dim, dim]`` orthonormal directions that keep most of the rows' squares.

    Randomised range finder (Halko, Martinsson and Tropp, 2011) on a sample of the rows.
    """
    generator = np.random.default_rng([seed, 2])
    size = min(len(rows), _SAMPLE_ROWS)
    sample = torch.from_numpy(rows[np.sort(generator.choice(len(rows), size, replace=False))])
    start = generator.standard_normal((sample.shape[1], dim)).astype(np.float32)
    basis = torch.linalg.qr(torch.from_numpy(start)).Q
    for _ in range(_POWER_ITERATIONS):
        basis = torch.linalg.qr(sample.T @ (sample @ basis)).Q
    return basis


def projected_join(join: SelfJoin, candidates_per_neighbor: int) -> SelfJoin:
    """The same join on projected rows, for more neighbours per row.

    Args:
        join: The join on full rows.
        candidates_per_neighbor: Neighbours on the projection for every one that is wanted.
    """
    wanted = min(_MOST_CANDIDATES, candidates_per_neighbor * join.settings.k)
    settings = join.settings.model_copy(update={"k": wanted})
    folder = join.folder / f"projected-{wanted}"
    folder.mkdir(exist_ok=True)
    target = folder / PREPARED_FILE
    if not target.exists():
        _write_projected(join, target)
    return replace(join, rows=np.load(target, mmap_mode="r"), settings=settings, folder=folder)


def _write_projected(join: SelfJoin, target: Path) -> None:
    partial = target.with_suffix(".partial")
    shape = (len(join.rows), PROJECTED_DIM)
    rows = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
    with single_threaded():
        basis = principal_directions(join.rows, PROJECTED_DIM, join.settings.seed)
        for start in range(0, len(rows), ROWS_PER_TASK):
            block = torch.from_numpy(np.array(join.rows[start : start + ROWS_PER_TASK]))
            rows[start : start + ROWS_PER_TASK] = (block @ basis).numpy()
    rows.flush()
    partial.replace(target)


@dataclass(frozen=True)
class RerankTask(RowsTask):
    """Scores the candidates of a range of prepared rows in full width.

    Attributes:
        candidates: File name of ``int32 [num_rows, num_candidates]``.
        k: Neighbours kept per row.
        metric: Similarity.
    """

    candidates: str
    k: int
    metric: Metric

    def run(self, folder: Path) -> NDArray:
        """Returns ``EDGE [last - first, k]``, ids are prepared rows."""
        rows = torch.from_numpy(np.load(folder / PREPARED_FILE, mmap_mode="r+"))
        ids = np.load(folder / self.candidates, mmap_mode="r")[self.first : self.last]
        own, place = np.nonzero(ids >= 0)
        others = ids[own, place].astype(np.int64)
        one = torch.from_numpy(own + self.first)
        scores = pair_scores(rows, one, rows, torch.from_numpy(others), self.metric)
        found = as_pairs(own, others, scores.numpy())
        return merge(0, no_edges(self.last - self.first, self.k), [found], self.k)


def rerank(
    join: SelfJoin, candidates: NDArray[np.int32], factor: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The best k candidates of each prepared row, ``[num_rows, k]`` ids and scores."""
    name = f"candidates-{factor}.npy"
    np.save(join.folder / name, candidates)
    tasks = [
        RerankTask(*rows, name, join.settings.k, join.settings.metric)
        for rows in row_ranges(len(candidates), ROWS_PER_TASK)
    ]
    edges = np.concatenate([np.load(path) for path in join.run(f"rerank-{factor}", tasks)])
    return edges["id"].copy(), edges["score"].copy()
