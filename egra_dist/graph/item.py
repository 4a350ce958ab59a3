"""The graphs that are written: of behaviour, of each modality's features, and both merged."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from egra_dist.catalog.catalog import Catalog
from egra_dist.config import ItemGraphSettings
from egra_dist.graph.assembly import write_rows
from egra_dist.graph.behavior import write_behavior, write_merged_rows
from egra_dist.graph.buckets import Map, Repeats, bucket
from egra_dist.graph.csr import Csr
from egra_dist.graph.edges import Direction, NeighborEdges
from egra_dist.graph.knn import KnnSettings
from egra_dist.graph.mixed import write_mixed
from egra_dist.graph.neighbors import Search

_REPEATS: dict[Direction, Repeats] = {
    "directed": "once",
    "union": "largest",
    "mutual": "smallest_of_two",
}


def write_graphs(
    catalog: Catalog,
    modalities: Iterable[str],
    k: int,
    folder: Path,
    connect: Callable[[], None] = lambda: None,
    run: Map = map,
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
        run: Who does the tasks.

    Returns:
        Counts of edges, and how the neighbours of each modality were found.
    """
    with _working(folder) as work:
        counts = {"training": write_behavior(catalog, folder, work, run)}
    search = Search(folder / "search", connect)
    statistics = {}
    for name in modalities:
        features = catalog.features(name)
        knn = search.run(name, features.values, KnnSettings(k=k - 1), features.present)
        with _working(folder) as work:
            knn.save(work / "knn")
            np.save(work / "present.npy", features.present)
            edges = NeighborEdges.of(work / "knn", loops=work / "present.npy")
            rows = bucket(edges, (len(features.present),) * 2, work / "edges", run)
            target = folder / "features" / name
            counts[name] = write_rows(rows, target, work / "rows", run, normalized=True)
        statistics[name] = knn.statistics
    shutil.rmtree(search.workdir, ignore_errors=True)
    return {"num_edges": counts, "neighbors": statistics}


def write_items(
    knn: Path, settings: ItemGraphSettings, folder: Path, work: Path, run: Map = map
) -> int:
    """Writes the item-item matrix ``A_II [num_items, num_items]``, without self-loops.

    Args:
        knn: Folder of the kNN graph.
        settings: Whether an edge weighs 1 or its cosine (never below 0), and whether edges stay as
            found (``directed``), have their reverse added (``union``), or must be found from both
            ends (``mutual``).
        folder: Where it goes.
        work: Folder for what is written in between.
        run: Who does the tasks.

    Returns:
        Number of edges.
    """
    edges = NeighborEdges.of(knn, settings.direction, settings.weight == "cosine")
    num_items = edges[-1].last
    repeats = _REPEATS[settings.direction]
    rows = bucket(edges, (num_items, num_items), work / "item-edges", run, repeats)
    return write_rows(rows, folder, work / "item-rows", run)


def merge_recipe(settings: ItemGraphSettings) -> dict[str, Any]:
    """What decides the result of :func:`write_merged` beside the graphs and the neighbours."""
    recipe = settings.model_dump(mode="json", include={"direction", "weight", "beta"})
    if settings.modality_share:  # merged graphs of earlier versions keep their names
        recipe["modality_share"] = settings.modality_share
    return recipe


def write_merged(
    graphs: Path, knn: Path, settings: ItemGraphSettings, folder: Path, run: Map = map
) -> dict[str, Any]:
    """Writes ``behavior``: ``N(A)`` with the edges of a kNN graph merged in (METHOD, stage 2).

    Where the modality branch shall have a share of these edges, also ``features/<modality>``.

    Args:
        graphs: Folder of :func:`write_graphs`.
        knn: Folder of the kNN graph.
        settings: What becomes of its edges.
        folder: Where the matrices go; another one.
        run: Who does the tasks.

    Returns:
        Counts of edges and degrees.
    """
    with _working(folder) as work:
        num_item_edges = write_items(knn, settings, work / "items", work, run)
        item_degrees = np.diff(Csr.load(work / "items").indptr)
        num_edges = write_merged_rows(
            graphs / "plain", work / "items", settings.beta, folder / "behavior", work / "rows", run
        )
        mixed = {}
        if settings.modality_share:
            source, target = graphs / "features", folder / "features"
            mixed = write_mixed(source, knn, settings.modality_share, target, work, run)
    return {
        "num_item_edges": num_item_edges,
        "num_edges": num_edges,
        "max_item_degree": int(item_degrees.max(initial=0)),
        "num_items_without_neighbors": int((item_degrees == 0).sum()),
        **({"num_modality_edges": mixed} if mixed else {}),
    }


@contextmanager
def _working(folder: Path) -> Iterator[Path]:
    """A folder beside the results, empty at the start and gone at the end."""
    work = folder.resolve() / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    yield work
    shutil.rmtree(work)
