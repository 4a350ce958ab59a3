"""The stages in their order: read this first.

    catalogue -> features -> graphs -> pretrain -> knn -> merge -> train -> evaluate -> export

Every stage writes one artifact, named by the digest of what it was made from; a stage whose
artifact is on disk is not run again. Nothing is computed here: the stages call the rooms.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
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
from egra_dist.graph.item import merge_recipe, write_graphs, write_merged
from egra_dist.graph.knn import KnnSettings
from egra_dist.graph.neighbors import ItemNeighbors, write_neighbors
from egra_dist.histories import add_history
from egra_dist.results import collect, curves, flat_metrics
from egra_dist.storage import Storage
from egra_dist.train.launch import launch
from egra_dist.train.recipe import training_recipe
from egra_dist.train.task import GraphPaths, Recording, Survival, Task
from egra_dist.train.worker import evaluate_worker, train_worker
from egra_dist.workspace import Workspace

_GRAPHS = ("graphs", "knn", "merge")
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
            self._merge_neighbors("merge", "knn", self._config.item_graph)

    def _train(self) -> None:
        is_merged = MAIN in self._config.item_graphs
        self._train_model(MAIN, self._config.train, "merge" if is_merged else "graphs")
        for name, settings in self._config.baselines.items():
            behavior = "graphs"
            if settings.merged_graph:
                self._find_neighbors(f"{name}.knn", settings.merged_graph)
                behavior = f"{name}.merge"
                self._merge_neighbors(behavior, f"{name}.knn", settings.merged_graph)
            self._train_model(name, settings, behavior)

    def _find_neighbors(self, kind: str, settings: ItemGraphSettings) -> None:
        """Leaves the neighbours of every item, by the vectors that the settings name."""
        knn = KnnSettings(k=settings.k, seed=self._config.seed)
        source = ItemNeighbors(
            self._catalog,
            settings,
            knn,
            pretrained=self._artifacts["pretrain"].folder if settings.is_pretrained else None,
        )
        recipe = {**knn.model_dump(mode="json"), **source.recipe()}
        inputs = ("pretrain",) if settings.is_pretrained else ()
        make = self._workspace.recorded(
            partial(write_neighbors, source, connect=self._workspace.connect), "neighbors"
        )
        self._build(kind, recipe, (*inputs, "features"), make, resumable=True)

    def _merge_neighbors(self, kind: str, knn: str, settings: ItemGraphSettings) -> None:
        """Leaves the behaviour graph with those neighbours in it."""
        graphs, neighbors = self._artifacts["graphs"].folder, self._artifacts[knn].folder
        write = self._workspace.recorded(
            lambda folder: write_merged(graphs, neighbors, settings, folder, self._map()),
            "graph",
        )

        def make(folder: Path, run_id: str) -> Mapping[str, Any]:
            counts = write(folder, run_id)
            merged, is_main = folder / "behavior", kind == "merge"
            self._figures.item_graph(self._catalog, graphs, neighbors, merged, run_id, is_main)
            return counts

        self._build(kind, merge_recipe(settings), ("graphs", knn), make)

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

    def _train_model(self, stage: str, settings: TrainingSettings, behavior: str) -> None:
        """Trains a model on the behaviour graph that an earlier stage left."""
        graphs = self._graph_paths(settings, behavior)
        experiment = self._workspace.experiment
        tags = {"graph_digest": self._artifacts[behavior].digest}
        if stage == MAIN:
            experiment.set_tags(tags)
            self._record_graph_statistics()

        def make(folder: Path, run_id: str) -> Mapping[str, Any]:
            self._workspace.connect()
            system_seconds = 10.0 if self._config.tracking.system_metrics else None
            recording = Recording(experiment.uri, run_id, experiment.spool, system_seconds)
            digests = {name: self._artifacts[name].digest for name in inputs}
            experiment.set_tags(tags, run_id)
            task = self._task(stage, settings, graphs, folder, recording)
            task = replace(task, inputs=digests, storage=self._workspace.checkpoints_of(stage))
            try:
                launch(train_worker, task, self._config.cluster)
            finally:  # also of a training that was stopped, to be compared with others
                if stage == MAIN:
                    experiment.copy_metrics(run_id, curves(settings.metric))
            self._figures.training(task, run_id, is_main=stage == MAIN)
            return json.loads((folder / "training.json").read_text())

        recipe = training_recipe(settings, self._config.seed)
        inputs = tuple(sorted({"graphs", behavior}))
        self._build(stage, recipe, inputs, make, resumable=True)
        folder = self._artifacts[stage].folder
        self._trained[stage] = self._task(stage, settings, graphs, folder)

    def _record_graph_statistics(self) -> None:
        graphs = {k: v.manifest.counts for k, v in self._artifacts.items() if k in _GRAPHS}
        self._workspace.experiment.log_dict(graphs, "graph/statistics.json")

    def _graph_paths(self, settings: TrainingSettings, behavior: str) -> GraphPaths:
        return GraphPaths.of(
            self._artifacts["graphs"].folder,
            settings.model.seen_of(self._catalog.modalities),
            None if behavior == "graphs" else self._artifacts[behavior].folder,
        )

    def _task(
        self,
        stage: str,
        settings: TrainingSettings,
        graphs: GraphPaths,
        folder: Path,
        recording: Recording | None = None,
    ) -> Task:
        return Task(
            stage=stage,
            catalog=self._catalog.path.resolve(),
            graphs=graphs,
            settings=settings,
            evaluation=self._config.evaluation,
            folder=folder,
            seed=self._config.seed,
            recording=recording,
            log_every_steps=self._config.tracking.log_every_steps,
            survival=Survival.of(self._config.cluster),
            verbosity=self._workspace.verbosity,
            features=self._catalog.features_folder,
            code=Path.cwd(),
            catalog_uri=self._catalog.uri,
            history=self._config.history,
        )

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
