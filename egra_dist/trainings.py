"""The training of a model as a stage: on the graphs that are there, over all workers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from egra_dist.artifact import Artifact
from egra_dist.catalog.catalog import Catalog
from egra_dist.config import MAIN, TrainingSettings
from egra_dist.figures.record import FigureLog
from egra_dist.results import curves
from egra_dist.train.launch import launch
from egra_dist.train.recipe import training_recipe
from egra_dist.train.task import GraphPaths, Recording, Survival, Task
from egra_dist.train.worker import train_worker
from egra_dist.workspace import Workspace


@dataclass(frozen=True)
class Training:
    """A model's training, done or to be done.

    Attributes:
        workspace: The run.
        stage: What the artifact is called.
        catalog: What is learned from, with preprocessed features where there are such.
        settings: The model, and how it is trained.
        graphs: Items of equal features and who chose what.
        behavior: The graph that is propagated on: ``graphs``, or one with an item graph in it.
    """

    workspace: Workspace
    stage: str
    catalog: Catalog
    settings: TrainingSettings
    graphs: Artifact
    behavior: Artifact

    def build(self, figures: FigureLog) -> Artifact:
        """Trains, unless that was done before.

        Args:
            figures: Where the training is drawn.
        """

        def make(folder: Path, run_id: str) -> Mapping[str, Any]:
            self.workspace.connect()
            self.workspace.experiment.set_tags(self.tags, run_id)
            task = self._task_to_do(folder, run_id)
            try:
                launch(train_worker, task, self.workspace.config.cluster)
            finally:  # also of a training that was stopped, to be compared with others
                if self.stage == MAIN:
                    self.workspace.experiment.copy_metrics(run_id, curves(self.settings.metric))
            figures.training(task, run_id, is_main=self.stage == MAIN)
            return json.loads((folder / "training.json").read_text())

        config = self.workspace.config
        recipe = training_recipe(self.settings, config.seed, config.evaluation.num_users)
        return self.workspace.build(self.stage, recipe, self.inputs, make, resumable=True)

    @property
    def inputs(self) -> dict[str, Artifact]:
        """What it is made from."""
        kinds = {artifact.manifest.kind: artifact for artifact in (self.graphs, self.behavior)}
        return dict(sorted(kinds.items()))

    @property
    def tags(self) -> dict[str, str]:
        """What its run in MLflow is filtered by."""
        return {"graph_digest": self.behavior.digest}

    def task(self, folder: Path) -> Task:
        """What workers are told of it.

        Args:
            folder: Where its results are.
        """
        config, catalog = self.workspace.config, self.catalog
        return Task(
            stage=self.stage,
            catalog=catalog.path.resolve(),
            graphs=self._graph_paths(),
            settings=self.settings,
            evaluation=config.evaluation,
            folder=folder,
            seed=config.seed,
            log_every_steps=config.tracking.log_every_steps,
            survival=Survival.of(config.cluster),
            verbosity=self.workspace.verbosity,
            features=catalog.features_folder,
            code=Path.cwd(),
            catalog_uri=catalog.uri,
            history=config.history,
        )

    def _task_to_do(self, folder: Path, run_id: str) -> Task:
        experiment = self.workspace.experiment
        system_seconds = 10.0 if self.workspace.config.tracking.system_metrics else None
        return replace(
            self.task(folder),
            recording=Recording(experiment.uri, run_id, experiment.spool, system_seconds),
            inputs={name: artifact.digest for name, artifact in self.inputs.items()},
            storage=self.workspace.checkpoints_of(self.stage),
        )

    def _graph_paths(self) -> GraphPaths:
        is_merged = self.behavior is not self.graphs
        return GraphPaths.of(
            self.graphs.folder,
            self.settings.model.seen_of(self.catalog.modalities),
            self.behavior.folder if is_merged else None,
        )
