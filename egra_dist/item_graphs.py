"""The item graph of a model: every item's neighbours, then merged with who chose what."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from egra_dist.artifact import Artifact
from egra_dist.catalog.catalog import Catalog
from egra_dist.config import ItemGraphSettings
from egra_dist.figures.record import FigureLog
from egra_dist.graph.buckets import Map
from egra_dist.graph.item import merge_recipe, write_merged
from egra_dist.graph.knn import KnnSettings
from egra_dist.graph.neighbors import ItemNeighbors, write_neighbors
from egra_dist.workspace import Workspace

MERGED = "merge"
"""The stage of the model that a run is about; those of other models have longer names."""


def find_neighbors(
    workspace: Workspace,
    kind: str,
    catalog: Catalog,
    settings: ItemGraphSettings,
    artifacts: Mapping[str, Artifact],
) -> Artifact:
    """Leaves the neighbours of every item, by the vectors that the settings name.

    Args:
        workspace: The run.
        kind: What the artifact is called.
        catalog: The items, with preprocessed features where there are such.
        settings: Whose vectors count.
        artifacts: What the stages before have left.
    """
    knn = KnnSettings(k=settings.k, seed=workspace.config.seed)
    source = ItemNeighbors(catalog, settings, knn)
    if settings.is_pretrained:
        sees_features = workspace.config.pretrain.model.seen_of(catalog.modalities)
        training = None if sees_features else artifacts["graphs"].folder / "training"
        source = replace(source, pretrained=artifacts["pretrain"].folder, training=training)
    recipe = {**knn.model_dump(mode="json"), **source.recipe()}
    names = ("pretrain", "features") if settings.is_pretrained else ("features",)
    inputs = {name: artifacts[name] for name in names if name in artifacts}
    make = workspace.recorded(
        partial(write_neighbors, source, connect=workspace.connect), "neighbors"
    )
    return workspace.build(kind, recipe, inputs, make, resumable=True)


def merge_neighbors(
    workspace: Workspace,
    kind: str,
    catalog: Catalog,
    settings: ItemGraphSettings,
    inputs: Mapping[str, Artifact],
    figures: FigureLog,
    get_map: Callable[[], Map],
) -> Artifact:
    """Leaves the behaviour graph with the neighbours in it.

    Args:
        workspace: The run.
        kind: What the artifact is called.
        catalog: The items.
        settings: What the neighbours weigh.
        inputs: The graphs, then the neighbours.
        figures: Where the result is drawn.
        get_map: Says who does the tasks; asked when there are any.
    """
    graphs, neighbors = (artifact.folder for artifact in inputs.values())
    write = workspace.recorded(
        lambda folder: write_merged(graphs, neighbors, settings, folder, get_map()), "graph"
    )

    def make(folder: Path, run_id: str) -> Mapping[str, Any]:
        counts = write(folder, run_id)
        merged, is_main = folder / "behavior", kind == MERGED
        figures.item_graph(catalog, graphs, neighbors, merged, run_id, is_main)
        return counts

    return workspace.build(kind, merge_recipe(settings), inputs, make)
