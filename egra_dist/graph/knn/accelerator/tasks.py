"""What a device does for a build: train lists, assign rows to them, find neighbours."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from egra_dist.graph.knn.accelerator.search import Nearest, Queries, search_all, search_lists
from egra_dist.graph.knn.accelerator.table import CENTROIDS_FILE, Table, on_device, open_table
from egra_dist.graph.knn.audit import SAMPLE_FILE
from egra_dist.graph.knn.bisection import bisection_order
from egra_dist.graph.knn.edges import as_edges
from egra_dist.graph.knn.kmeans import directions, kmeans, nearest_centroid
from egra_dist.graph.knn.prepare import PREPARED_FILE
from egra_dist.graph.knn.settings import Metric
from egra_dist.graph.knn.tasks import RowsTask

_SAMPLE_PER_LIST = 256


@dataclass(frozen=True)
class CentroidsTask:
    """Trains the centroids of lists on a sample of the rows.

    Attributes:
        num_lists: Lists wanted; about as many are made.
        seed: Decides the sample and the first centroids.
        metric: Similarity.
        device: Where.
    """

    num_lists: int
    seed: int
    metric: Metric
    device: str

    @property
    def weight(self) -> float:
        """The only task of its stage."""
        return 1.0

    def run(self, folder: Path) -> NDArray:
        """Returns ``float32 [num_lists, dim]``, near ones near each other."""
        rows = np.load(folder / PREPARED_FILE, mmap_mode="r")
        generator = np.random.default_rng(self.seed)
        size = min(len(rows), _SAMPLE_PER_LIST * self.num_lists)
        chosen = np.sort(generator.choice(len(rows), size, replace=False))
        sample = directions(torch.from_numpy(rows[chosen]).to(self.device), self.metric)
        centroids = kmeans(sample, self.num_lists, self.metric, generator)
        sizes = nearest_centroid(sample, centroids, self.metric).bincount(minlength=len(centroids))
        centroids = centroids.cpu()
        return centroids[bisection_order(centroids, sizes.cpu())].numpy()


@dataclass(frozen=True)
class AssignTask(RowsTask):
    """Finds the list of each prepared row of a range.

    Attributes:
        metric: Similarity.
        device: Where.
    """

    metric: Metric
    device: str

    def run(self, folder: Path) -> NDArray:
        """Returns ``int32 [last - first]``."""
        rows = on_device(folder, self.device, self.first, self.last)
        centroids = torch.from_numpy(np.load(folder / CENTROIDS_FILE)).to(self.device)
        return nearest_centroid(rows, centroids, self.metric).int().cpu().numpy()


@dataclass(frozen=True)
class NearestTask(RowsTask):
    """Finds the neighbours of the rows at a range of places.

    Attributes:
        k: Neighbours per row.
        metric: Similarity.
        device: Where.
        num_probes: Lists in which they are searched; None: all.
    """

    k: int
    metric: Metric
    device: str
    num_probes: int | None

    def run(self, folder: Path) -> NDArray:
        """Returns ``EDGE [rows in the range, k]``, ids are prepared rows."""
        table = open_table(folder, self.metric, self.device)
        found = self._search(table, self.queries(folder, table))
        return as_edges(found.ids.cpu().numpy(), found.scores.cpu().numpy())

    def queries(self, folder: Path, table: Table) -> Queries:
        """The rows at the places of the range, without what fills up tiles."""
        part = slice(self.first, self.last)
        found = Queries(table.rows[part], table.ids[part])
        return found[found.ids >= 0]

    def _search(self, table: Table, queries: Queries) -> Nearest:
        if self.num_probes is None:
            return search_all(table, queries, self.k)
        return search_lists(table, queries, self.k, self.num_probes)


@dataclass(frozen=True)
class SampleTask(NearestTask):
    """Finds the neighbours of the sampled rows in a range of the sample."""

    def queries(self, folder: Path, table: Table) -> Queries:
        """The sampled rows."""
        ids = np.load(folder / SAMPLE_FILE)[self.first : self.last]
        rows = np.load(folder / PREPARED_FILE, mmap_mode="r")[ids]
        device = table.ids.device
        return Queries(torch.from_numpy(rows).to(device), torch.from_numpy(ids).to(device))
