"""Item graphs: over the raw features of each modality, and over pretrained item vectors."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog
from egra_dist.config import ItemGraphSettings
from egra_dist.graph.behavior import item_adjacency, merge, normalize, training_matrix
from egra_dist.graph.csr import Csr
from egra_dist.graph.knn import KnnGraph, KnnSettings, build_knn


def write_graphs(
    catalog: Catalog, modalities: Iterable[str], k: int, folder: Path
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

    Returns:
        Counts of edges.
    """
    training = training_matrix(catalog)
    training.save(folder / "training")
    merge(training, None, beta=0).save(folder / "plain")
    counts = {"training": training.num_entries}
    for name in modalities:
        features = catalog.features(name)
        knn = build_knn(features.values, KnnSettings(k=k - 1), features.present)
        adjacency = with_itself(knn, features.present)
        normalize(adjacency).save(folder / "features" / name)
        counts[name] = adjacency.num_entries
    return {"num_edges": counts}


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
