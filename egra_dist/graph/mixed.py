"""The modality branch's graphs, with the item graph's neighbours among a modality's own.

Raw features say who looks or reads alike; the item graph of a pretrained recommender also says who
is chosen alike, and where a feature row is wrong its neighbours are not.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from egra_dist.graph.assembly import write_rows
from egra_dist.graph.buckets import Map, blocks_of
from egra_dist.graph.csr import Csr, starts_of
from egra_dist.graph.partition import RowPartition, take_rows


def write_mixed(
    features: Path, knn: Path, share: float, folder: Path, work: Path, run: Map = map
) -> dict[str, int]:
    """Writes ``(1 - share) S_m + share S`` of every modality.

    Args:
        features: Folder that has ``S_m`` as ``<modality>``.
        knn: Folder of the kNN graph that ``S``, the mean over an item's neighbours, is of.
        share: Of the item graph, in [0, 1).
        folder: Takes ``<modality>``.
        work: Folder for what is written in between; exists.
        run: Who does the tasks.

    Returns:
        Number of entries, by modality.
    """
    return {
        path.name: write_rows(
            MixedRows.of(path, knn, share), folder / path.name, work / "mixed", run
        )
        for path in sorted(features.glob("*"))
    }


@dataclass(frozen=True)
class MixedRows:
    """``(1 - share) S_m + share S``; rows and columns of items without the modality stay empty.

    Attributes:
        features: ``S_m``, where an item with the modality is among its own neighbours.
        knn: Folder of the kNN graph.
        share: Of the kNN graph; an item that has no neighbours there keeps its row of ``S_m``.
        blocks: Blocks of items.
    """

    features: Path
    knn: Path
    share: float
    blocks: RowPartition

    @classmethod
    def of(cls, features: Path, knn: Path, share: float) -> "MixedRows":
        """Items in blocks of about as many entries of ``S_m`` each."""
        matrix = Csr.load(features)
        return cls(features, knn, share, blocks_of([matrix], matrix.num_rows))

    @property
    def num_columns(self) -> int:
        """Number of items."""
        return self.blocks.num_rows

    def read(self, number: int) -> Csr:
        """See :class:`egra_dist.graph.assembly.RowSource`."""
        block = self.blocks.block(number)
        matrix = Csr.load(self.features)
        own, means = take_rows(matrix, [block]).as_scipy(), self._means(matrix, block)
        has_means = np.diff(means.indptr) > 0
        kept = np.where(has_means, 1 - self.share, 1).astype(np.float32)
        mixed = scipy.sparse.diags_array(kept) @ own + np.float32(self.share) * means
        return Csr.from_scipy(mixed)

    def _means(self, matrix: Csr, block: slice) -> scipy.sparse.csr_array:
        """The block's rows of ``S``: of the neighbours that have the modality, each as much."""
        neighbors = np.load(self.knn / "neighbors.npy", mmap_mode="r")[block]
        items = np.arange(block.start, block.stop)
        counted = (neighbors >= 0) & _has_entries(matrix, neighbors)
        counted &= _has_entries(matrix, items)[:, None]
        counts = counted.sum(1)
        values = np.repeat(1 / np.maximum(counts, 1), counts).astype(np.float32)
        shape = (len(items), self.num_columns)
        rows = (values, neighbors[counted], starts_of(counts))
        return scipy.sparse.csr_array(rows, shape=shape)


def _has_entries(matrix: Csr, rows: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether rows of a matrix have any; of ``-1`` it says something."""
    return np.asarray(matrix.indptr[rows + 1] > matrix.indptr[rows])
