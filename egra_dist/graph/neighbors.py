"""Where the neighbours of items are searched: pretrained vectors, raw features, or one's own."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.files import content_digest
from egra_dist.catalog.vectors import own_vectors
from egra_dist.config import ItemGraphSettings, modality_shares
from egra_dist.graph.csr import Csr
from egra_dist.graph.knn import KnnGraph, KnnSettings, build_knn
from egra_dist.graph.knn.build import is_worth_ray
from egra_dist.graph.knn.combine import combine
from egra_dist.graph.products import column_counts
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


@dataclass(frozen=True)
class ItemNeighbors:
    """Where the neighbours of items are searched.

    Attributes:
        catalog: The items.
        settings: Whose vectors count.
        knn: How neighbours are found.
        pretrained: Folder with ``item_vectors.npy`` of the pretrained recommender, if needed.
        training: Folder of the training interactions, where that recommender knows nothing else:
            the vector of an item without any is what it was drawn as, and no neighbour.
    """

    catalog: Catalog
    settings: ItemGraphSettings
    knn: KnnSettings
    pretrained: Path | None = None
    training: Path | None = None

    def recipe(self) -> dict[str, Any]:
        """What decides the result beside :attr:`knn` and the pretrained vectors."""
        fields = {"source"}
        if self.settings.source in ("raw", "both"):
            fields |= {"combine", "modality_weights"}
        recipe = self.settings.model_dump(mode="json", include=fields)
        if self.settings.vectors:
            recipe["vectors"] = content_digest([self.settings.vectors])
        if self.training:
            recipe["items"] = "with interactions"
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
        present = column_counts(Csr.load(self.training)) > 0 if self.training else None
        return search.run("pretrained", vectors, self.knn, present)

    def _by_features(self, search: Search) -> KnnGraph:
        weights = self.settings.modality_weights
        # Shares of 1, so that joined with other neighbours no score is above theirs.
        shares = modality_shares(weights, self.catalog.modalities, "item_graph")
        shares = {name: share for name, share in shares.items() if share > 0}
        graphs = {name: self._by_modality(name, search) for name in shares}
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
