"""Item graphs: over the raw features of each modality, and over vectors of items."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.files import content_digest
from egra_dist.catalog.vectors import own_vectors
from egra_dist.config import ItemGraphSettings, modality_shares
from egra_dist.graph.behavior import item_adjacency, merge, normalize, training_matrix
from egra_dist.graph.csr import Csr
from egra_dist.graph.knn import KnnGraph, KnnSettings, build_knn
from egra_dist.graph.knn.build import is_worth_ray
from egra_dist.graph.knn.combine import combine
from egra_dist.tracking.progress import StageProgress


@dataclass(frozen=True)
class Search:
    """Where neighbours are searched.

    Attributes:
        workdir: Where an interrupted search is gone on with.
        connect: Makes sure that there is a Ray session; called when there is enough to do for it.
    """

    workdir: Path
    connect: Callable[[], None] = lambda: None

    def run(
        self, name: str, values: NDArray, knn: KnnSettings, present: NDArray[np.bool_] | None = None
    ) -> KnnGraph:
        """The graph of one table of vectors ``[num_items, dim]``; large ones show progress."""
        if not is_worth_ray(*values.shape):
            return build_knn(values, knn, present, self.workdir)
        self.connect()
        with StageProgress(f"knn of {name}", len(values), unit="rows") as progress:
            return build_knn(values, knn, present, self.workdir, progress)


def write_graphs(
    catalog: Catalog,
    modalities: Iterable[str],
    k: int,
    folder: Path,
    connect: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Writes what the training interactions and the raw features say.

    ``training``: ``R``; ``plain``: ``N(A)`` without item-item edges; ``features/<modality>``:
    ``S_m = D^-1/2 kNN_k(cos X_m) D^-1/2`` with row degrees on both sides (METHOD, stage 1). As
    in MGCN an item is the nearest of its own k neighbours.

    Args:
        catalog: The catalogue.
        modalities: Whose features.
        k: Neighbours per item, itself among them.
        folder: Where the matrices go.
        connect: As in :class:`Search`.

    Returns:
        Counts of edges, and how the neighbours of each modality were found.
    """
    training = training_matrix(catalog)
    search = Search(folder / "work", connect)
    training.save(folder / "training")
    merge(training, None, beta=0).save(folder / "plain")
    counts = {"training": training.num_entries}
    statistics = {}
    for name in modalities:
        features = catalog.features(name)
        knn = search.run(name, features.values, KnnSettings(k=k - 1), features.present)
        adjacency = with_itself(knn, features.present)
        normalize(adjacency).save(folder / "features" / name)
        counts[name] = adjacency.num_entries
        statistics[name] = knn.statistics
    shutil.rmtree(search.workdir, ignore_errors=True)
    return {"num_edges": counts, "neighbors": statistics}


@dataclass(frozen=True)
class ItemNeighbors:
    """Where the neighbours of items are searched.

    Attributes:
        catalog: The items.
        settings: Whose vectors count.
        knn: How neighbours are found.
        pretrained: Folder with ``item_vectors.npy`` of the pretrained recommender, if needed.
    """

    catalog: Catalog
    settings: ItemGraphSettings
    knn: KnnSettings
    pretrained: Path | None = None

    def recipe(self) -> dict[str, Any]:
        """What decides the result beside :attr:`knn` and the pretrained vectors."""
        fields = {"source"}
        if self.settings.source in ("raw", "both"):
            fields |= {"combine", "modality_weights"}
        recipe = self.settings.model_dump(mode="json", include=fields)
        if self.settings.vectors:
            recipe["vectors"] = content_digest([self.settings.vectors])
        return recipe

    def find(self, search: Search) -> KnnGraph:
        """Finds them.

        Raises:
            UserError: If the user's own vectors cannot be used.
        """
        match self.settings.source:
            case "pretrained":
                return self._by_pretrained(search)
            case "raw":
                return self._by_features(search)
            case "both":
                pretrained, raw = self._by_pretrained(search), self._by_features(search)
                return combine({"pretrained": pretrained, "raw": raw}, "union", self.knn.k)
            case _:
                assert self.settings.vectors is not None, "the settings are validated"
                own = own_vectors(self.catalog, self.settings.vectors)
                return search.run("vectors", own.values, self.knn, own.present)

    def _by_pretrained(self, search: Search) -> KnnGraph:
        assert self.pretrained is not None, "the pipeline has trained it"
        vectors = np.load(self.pretrained / "item_vectors.npy", mmap_mode="r")
        return search.run("pretrained", vectors, self.knn)

    def _by_features(self, search: Search) -> KnnGraph:
        names = self.catalog.modalities
        # Shares of 1, so that joined with other neighbours no score is above theirs.
        shares = modality_shares(self.settings.modality_weights, names, "item_graph")
        graphs = {name: self._by_modality(name, search) for name in names}
        return combine(graphs, self.settings.combine, self.knn.k, list(shares.values()))

    def _by_modality(self, name: str, search: Search) -> KnnGraph:
        features = self.catalog.features(name)
        return search.run(name, features.values, self.knn, features.present)


def write_neighbors(
    source: ItemNeighbors, folder: Path, connect: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Writes the neighbours of every item (METHOD, stage 2).

    Returns:
        How they were found, and what the graph looks like.
    """
    search = Search(folder / "work", connect)
    graph = source.find(search)
    graph.save(folder)
    shutil.rmtree(search.workdir, ignore_errors=True)
    return graph.statistics


def with_itself(knn: KnnGraph, present: NDArray[np.bool_]) -> Csr:
    """A directed, binary kNN graph in which every item that is there neighbours itself."""
    own = np.where(present, np.arange(knn.num_rows), -1).astype(np.int32)[:, None]
    neighbors = np.concatenate([own, knn.neighbors], axis=1)
    scores = np.concatenate([np.ones_like(own, dtype=np.float32), knn.scores], axis=1)
    return item_adjacency(neighbors, scores, "directed", "binary")


def write_merged(
    training: Csr, knn: KnnGraph, settings: ItemGraphSettings, folder: Path
) -> dict[str, Any]:
    """Writes ``N(A)`` with the item-item edges of ``knn`` merged in (METHOD, stage 2).

    Returns:
        Counts of edges and degrees.
    """
    items = item_adjacency(knn.neighbors, knn.scores, settings.direction, settings.weight)
    merged = merge(training, items, settings.beta)
    merged.save(folder / "behavior")
    item_degrees = np.diff(items.indptr)
    return {
        "num_item_edges": items.num_entries,
        "num_edges": merged.num_entries,
        "max_item_degree": int(item_degrees.max(initial=0)),
        "num_items_without_neighbors": int((item_degrees == 0).sum()),
    }
