"""The stages in their order: read this first.

    catalogue -> features -> graphs -> pretrain -> knn -> merge -> train -> evaluate -> export

Every stage writes one artifact, named by the digest of what it was made from; a stage whose
artifact is on disk is not run again. Nothing is computed here: the stages call the rooms.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from egra_dist.artifact import Artifact
from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.preprocess import write_features
from egra_dist.checks import check_run
from egra_dist.cluster.tasks import ray_map
from egra_dist.config import MAIN, Config, ItemGraphSettings, TrainingSettings
from egra_dist.exports import export
from egra_dist.figures.record import FigureLog
from egra_dist.files import write_json
from egra_dist.graph.buckets import Map
from egra_dist.graph.item import write_graphs
from egra_dist.histories import add_history
from egra_dist.item_graphs import MERGED, find_neighbors, merge_neighbors
from egra_dist.results import collect, flat_metrics
from egra_dist.storage import Storage
from egra_dist.train.launch import launch
from egra_dist.train.task import Task
from egra_dist.train.worker import evaluate_worker
from egra_dist.trainings import Training
from egra_dist.workspace import Workspace

_GRAPHS = ("graphs", "knn", MERGED)
_INTERACTIONS_WORTH_RAY = 20_000_000
"""Below it one process makes the behaviour graph in about the time that Ray takes to start."""


def run_pipeline(
    config: Config,
    catalog: Catalog,
    out: Path,
    last_stage: str = "export",
    verbosity: int = 0,
    artifacts: Path | None = None,
    tags: Mapping[str, str] | None = None,
    storage: Storage | None = None,
) -> dict[str, Any]:
    """Applies a configuration to a catalogue: what is not yet done, up to ``last_stage``.

    Args:
        config: All settings.
        catalog: What to learn from.
        out: The run folder.
        last_stage: One of :data:`egra_dist.config.STAGES`.
        verbosity: 0, or more to see what the libraries say.
        artifacts: Where the results of stages are kept; see :class:`Workspace`.
        tags: More tags of the run in MLflow.
        storage: Where results and checkpoints are copied to, and come from; see :mod:`storage`.

    Returns:
        What stands in ``metrics.json``; empty when the evaluation was not reached.

    Raises:
        UserError: If the run folder cannot be written, or the settings do not suit the
            catalogue, see :func:`check_run`.
    """
    check_run(config, catalog, last_stage)
    with Workspace(config, catalog, out, verbosity, artifacts, tags, storage=storage) as workspace:
        pipeline = Pipeline(workspace)
        for name, stage in pipeline.stages.items():
            stage()
            if name == last_stage:
                break
    return pipeline.metrics


class Pipeline:
    """The stages of one run; each leaves its artifact for the next."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._config = workspace.config
        self._catalog = workspace.catalog
        self._artifacts: dict[str, Artifact] = {}
        self._trained: dict[str, Task] = {}
        self._figures = FigureLog(workspace.experiment, workspace.config.tracking.figures)
        self.metrics: dict[str, Any] = {}

    @property
    def stages(self) -> dict[str, Callable[[], None]]:
        """What is run, in the order of :data:`STAGES`."""
        return {
            "features": self._features,
            "graphs": self._graphs,
            "pretrain": self._pretrain,
            "knn": self._knn,
            "merge": self._merge,
            "train": self._train,
            "evaluate": self._evaluate,
            "export": self._export,
        }

    def _features(self) -> None:
        """Leaves preprocessed features; where none are wanted the catalogue's own serve."""
        settings, seed = self._config.features, self._config.seed
        if not settings.changes_features:
            return
        self._build(
            "features",
            {**settings.model_dump(mode="json"), "seed": seed},
            (),
            lambda folder, _: write_features(self._catalog, settings, seed, folder),
        )
        self._catalog = replace(self._catalog, features_folder=self._artifacts["features"].folder)

    def _graphs(self) -> None:
        modalities = list(self._catalog.modalities)
        k, connect = self._config.feature_graph.k, self._workspace.connect
        self._build(
            "graphs",
            {"modalities": modalities, "k": k},
            ("features",),
            self._workspace.recorded(
                lambda folder: write_graphs(
                    self._catalog, modalities, k, folder, connect, self._map()
                ),
                "graph",
            ),
            resumable=True,
        )

    def _pretrain(self) -> None:
        if any(graph.is_pretrained for graph in self._config.item_graphs.values()):
            self._train_model("pretrain", self._config.pretrain, "graphs")

    def _knn(self) -> None:
        if MAIN in self._config.item_graphs:
            self._find_neighbors("knn", self._config.item_graph)

    def _merge(self) -> None:
        if MAIN in self._config.item_graphs:
            self._merge_neighbors(MERGED, "knn", self._config.item_graph)

    def _train(self) -> None:
        is_merged = MAIN in self._config.item_graphs
        self._train_model(MAIN, self._config.train, MERGED if is_merged else "graphs")
        for name, settings in self._config.baselines.items():
            behavior = "graphs"
            if settings.merged_graph:
                self._find_neighbors(f"{name}.knn", settings.merged_graph)
                behavior = f"{name}.{MERGED}"
                self._merge_neighbors(behavior, f"{name}.knn", settings.merged_graph)
            self._train_model(name, settings, behavior)

    def _find_neighbors(self, kind: str, settings: ItemGraphSettings) -> None:
        self._artifacts[kind] = find_neighbors(
            self._workspace, kind, self._catalog, settings, self._artifacts
        )

    def _merge_neighbors(self, kind: str, knn: str, settings: ItemGraphSettings) -> None:
        inputs = {name: self._artifacts[name] for name in ("graphs", knn)}
        self._artifacts[kind] = merge_neighbors(
            self._workspace, kind, self._catalog, settings, inputs, self._figures, self._map
        )

    def _train_model(self, stage: str, settings: TrainingSettings, behavior: str) -> None:
        """Trains a model on the behaviour graph that an earlier stage left."""
        graphs = (self._artifacts[name] for name in ("graphs", behavior))
        training = Training(self._workspace, stage, self._catalog, settings, *graphs)
        if stage == MAIN:
            self._workspace.experiment.set_tags(training.tags)
            self._record_graph_statistics()
        self._artifacts[stage] = training.build(self._figures)
        self._trained[stage] = training.task(self._artifacts[stage].folder)

    def _record_graph_statistics(self) -> None:
        graphs = {k: v.manifest.counts for k, v in self._artifacts.items() if k in _GRAPHS}
        self._workspace.experiment.log_dict(graphs, "graph/statistics.json")

    def _map(self) -> Map:
        """Who does the tasks of a graph: all CPUs of the session where there is enough to do."""
        if self._catalog.num_interactions("train") < _INTERACTIONS_WORTH_RAY:
            return map
        self._workspace.connect()
        return ray_map

    def _evaluate(self) -> None:
        """Reads the figures that the trainings left, or ranks their vectors again."""
        if self._config.history.is_used:
            for stage, task in self._trained.items():
                kind = "history" if stage == MAIN else f"{stage}.history"
                trained = self._artifacts[stage]
                self._artifacts[kind] = add_history(self._workspace, kind, task, trained)
                self._trained[stage] = replace(task, users=self._artifacts[kind].folder)
        for task in self._trained.values():
            if not task.evaluation_file.exists():
                self._workspace.connect()
                launch(evaluate_worker, task, self._config.cluster)
        self.metrics = collect(
            self._catalog, self._trained, self._artifacts, self._config.evaluation
        )
        path = self._workspace.folder / "metrics.json"
        write_json(path, self.metrics)
        # After the curves: the last value of a metric is that of the best state.
        step = json.loads((self._trained[MAIN].folder / "training.json").read_text())["step"] + 1
        self._workspace.experiment.log_metrics(flat_metrics(self.metrics), step)
        self._workspace.experiment.log_artifact(path)

    def _export(self) -> None:
        export(self._workspace, self._catalog, self._artifacts, self._config.export)

    def _build(
        self,
        kind: str,
        settings: Mapping[str, Any],
        inputs: tuple[str, ...],
        make: Callable[[Path, str], Mapping[str, Any]],
        **options: Any,
    ) -> None:
        sources = {name: self._artifacts[name] for name in inputs if name in self._artifacts}
        self._artifacts[kind] = self._workspace.build(kind, settings, sources, make, **options)
