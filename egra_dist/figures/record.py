"""Draws what a stage has left, and hands it to MLflow; no failure of it is a run's failure.

The driver does this when the stage has done its work: nothing here is waited for by a training.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog
from egra_dist.config import AlignmentSettings
from egra_dist.figures import alignment, neighbors
from egra_dist.graph.csr import Csr
from egra_dist.graph.knn import KnnGraph
from egra_dist.graph.products import column_counts
from egra_dist.model.alignment import entity_weights
from egra_dist.tracking.experiment import Experiment
from egra_dist.train.sharding import SHARDING
from egra_dist.train.task import Task

_log = logging.getLogger(__name__)
_MAX_DRAWN = 1_000_000
"""Entities of a histogram: those of a larger catalogue are thinned out evenly."""


class FigureLog:
    """Records figures and tables of stages, with the stage's run.

    Those of the model that a run is about stand with the parent, too.

    Args:
        experiment: Where they are recorded.
        is_wanted: Whether figures are drawn at all.
    """

    def __init__(self, experiment: Experiment, is_wanted: bool) -> None:
        self._experiment = experiment
        self._is_wanted = is_wanted

    def training(self, task: Task, run_id: str, is_main: bool) -> None:
        """Records where a training's tables were, its schedule, weights and degrees."""
        with _attempt(f"{task.stage}: figures"):
            sharding = json.loads((task.folder / SHARDING).read_text())
            self._experiment.log_dict(sharding, "plan/sharding.json", run_id)
            if not self._is_wanted:
                return
            figures = {}
            degrees = _read_degrees(task.folder)
            if degrees:
                series = self._experiment.series(run_id)
                figures["alignment_schedule"] = alignment.draw_schedule(
                    series, task.settings.metric
                )
                if task.settings.alignment.focus != "uniform":
                    weights = _weights(degrees, task.settings.alignment)
                    figures["entity_weights"] = alignment.draw_weights(weights)
                groups = _groups(degrees, Csr.load(task.graphs.training))
                figures["alignment_by_popularity"] = alignment.draw_degrees(groups)
            self._put(figures, run_id, is_main)

    def item_graph(
        self, catalog: Catalog, graphs: Path, knn: Path, merged: Path, run_id: str, is_main: bool
    ) -> None:
        """Records what the merged item graph is like.

        Args:
            catalog: The items.
            graphs: What the stage ``graphs`` has left.
            knn: Folder of the neighbours.
            merged: Folder of the merged behaviour graph.
            run_id: The run of the stage.
            is_main: Whether it is the graph of the model that the run is about.
        """
        with _attempt("item graph: figures"):
            behavior = Csr.load(merged)
            edges = neighbors.item_edges(behavior, catalog.num_users)
            features = {name: Csr.load(graphs / "features" / name) for name in catalog.modalities}
            shares = neighbors.agreement(edges, features)
            named = {f"graph/agreement/{name}": share for name, share in shares.items()}
            self._experiment.log_metrics(named, run_id=run_id)
            counts = column_counts(Csr.load(graphs / "training"))
            rows = neighbors.example_rows(catalog, counts, KnnGraph.load(knn))
            self._experiment.log_table(rows, "tables/neighbors.json", run_id)
            if self._is_wanted:
                degrees = neighbors.item_degrees(behavior, catalog.num_users, counts)
                drawn = neighbors.draw_item_graph(degrees, shares)
                self._put({"item_graph": drawn}, run_id, is_main)

    def _put(self, figures: Mapping[str, Any], run_id: str, is_main: bool) -> None:
        whose = (run_id, None) if is_main else (run_id,)
        for name, figure in figures.items():
            self._experiment.log_figure(figure, f"figures/{name}.png", whose)


@contextmanager
def _attempt(what: str) -> Iterator[None]:
    """A picture that cannot be drawn is said once, and missed."""
    try:
        yield
    except Exception as error:
        # Whatever matplotlib or a full disk raises: the stage has done its work.
        _log.warning("%s were not recorded: %s: %s", what, type(error).__name__, error)


def _read_degrees(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Alignment degrees ``[num_entities]``; nothing of a model that sees no modality."""
    files = {name: folder / f"{name[:-1]}_degrees.npy" for name in ("users", "items")}
    if not all(file.exists() for file in files.values()):
        return {}
    return {name: np.load(file, mmap_mode="r")[:, 0] for name, file in files.items()}


def _weights(
    degrees: Mapping[str, NDArray[np.float32]], settings: AlignmentSettings
) -> dict[str, NDArray[np.float32]]:
    thinned = {name: values[:: -(-len(values) // _MAX_DRAWN)] for name, values in degrees.items()}
    return {
        name: entity_weights(torch.from_numpy(np.array(values)), settings).numpy()
        for name, values in thinned.items()
    }


def _groups(
    degrees: Mapping[str, NDArray[np.float32]], training: Csr
) -> dict[str, tuple[list[str], list[float]]]:
    counts = {"users": np.diff(training.indptr), "items": column_counts(training)}
    return {name: alignment.by_popularity(counts[name], degrees[name]) for name in degrees}
