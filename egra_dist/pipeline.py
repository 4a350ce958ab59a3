"""The stages in their order: read this first.

    catalogue -> graphs -> pretrain -> knn -> merge -> train -> evaluate -> export

Every stage writes one artifact, named by the digest of what it was made from; a stage whose
artifact is on disk is not run again. Nothing is computed here: the stages call the rooms.
"""

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from egra_dist.artifact import Artifact, build, digest_of, write_json
from egra_dist.catalog.catalog import Catalog
from egra_dist.config import Config, TrainingSettings
from egra_dist.errors import UserError
from egra_dist.results import collect, flat_metrics
from egra_dist.train.task import GraphPaths, Recording, Task

_log = logging.getLogger(__name__)


class Pipeline:
    """One run: a configuration applied to a catalogue.

    Args:
        config: All settings.
        catalog: What to learn from.
        out: The run folder.
        verbosity: 0, or more to see what the libraries say.
    """

    def __init__(self, config: Config, catalog: Catalog, out: Path, verbosity: int = 0) -> None:
        self._config = config
        self._catalog = catalog
        self._out = out.resolve()
        self._verbosity = verbosity
        self._artifacts: dict[str, Artifact] = {}
        self._trained: dict[str, Task] = {}
        self._resources = ExitStack()

    @property
    def stages(self) -> dict[str, Callable[[], None]]:
        """What is run, in this order."""
        return {
            "graphs": self._graphs,
            "pretrain": self._pretrain,
            "knn": self._knn,
            "merge": self._merge,
            "train": self._train,
            "evaluate": self._evaluate,
            "export": self._export,
        }

    def run(self, last_stage: str = "export") -> dict[str, Any]:
        """Runs the stages up to ``last_stage``.

        Returns:
            What stands in ``metrics.json``; empty when the evaluation was not reached.

        Raises:
            UserError: If the run folder cannot be written, or the stage is not known.
        """
        if last_stage not in self.stages:
            raise UserError(f"stage {last_stage!r} is not known; one of {', '.join(self.stages)}")
        self._prepare_folder()
        with self._resources:
            self._experiment = self._open_experiment()
            for name, stage in self.stages.items():
                stage()
                if name == last_stage:
                    break
        metrics = self._out / "metrics.json"
        return json.loads(metrics.read_text()) if metrics.exists() else {}

    def _graphs(self) -> None:
        from egra_dist.graph.item import write_graphs

        modalities = self._config.train.model.modalities or list(self._catalog.modalities)
        k = self._config.feature_graph.k
        self._build(
            "graphs",
            {"modalities": modalities, "k": k},
            {"catalog": self._catalog.digest},
            lambda folder, _: write_graphs(self._catalog, modalities, k, folder),
        )

    def _pretrain(self) -> None:
        if self._config.item_graph.source == "pretrained":
            self._train_model("pretrain", self._config.pretrain, behavior="graphs")

    def _knn(self) -> None:
        from egra_dist.graph.knn import KnnSettings, build_knn

        if self._config.item_graph.source == "none":
            return
        settings = KnnSettings(k=self._config.item_graph.k, seed=self._config.seed)
        pretrained = self._artifacts["pretrain"]

        def make(folder: Path, _: str) -> Mapping[str, Any]:
            vectors = np.load(pretrained.folder / "item_vectors.npy", mmap_mode="r")
            graph = build_knn(vectors, settings, workdir=folder / "work")
            graph.save(folder)
            return graph.statistics

        inputs = {"pretrain": pretrained.digest}
        self._build("knn", settings.model_dump(mode="json"), inputs, make, resumable=True)

    def _merge(self) -> None:
        from egra_dist.graph.csr import Csr
        from egra_dist.graph.item import write_merged
        from egra_dist.graph.knn import KnnGraph

        settings = self._config.item_graph
        if settings.source == "none":
            return
        graphs, knn = self._artifacts["graphs"], self._artifacts["knn"]
        self._build(
            "merge",
            settings.model_dump(mode="json"),
            {"graphs": graphs.digest, "knn": knn.digest},
            lambda folder, _: write_merged(
                Csr.load(graphs.folder / "training"), KnnGraph.load(knn.folder), settings, folder
            ),
        )

    def _train(self) -> None:
        has_item_graph = self._config.train.model.uses_item_graph and "merge" in self._artifacts
        self._train_model("train", self._config.train, "merge" if has_item_graph else "graphs")
        for name, settings in self._config.baselines.items():
            self._train_model(name, settings, behavior="graphs")

    def _evaluate(self) -> None:
        """Reads the figures that the trainings left, or ranks their vectors again."""
        from egra_dist.train.launch import launch
        from egra_dist.train.worker import evaluate_worker

        for task in self._trained.values():
            if not task.evaluation_file.exists():
                self._connect()
                launch(evaluate_worker, task, self._config.cluster)
        metrics = collect(self._catalog, self._trained, self._artifacts, self._config.evaluation)
        write_json(self._out / "metrics.json", metrics)
        self._experiment.log_metrics(flat_metrics(metrics))
        self._experiment.log_artifact(self._out / "metrics.json")

    def _export(self) -> None:
        from egra_dist.serve.export import export_vectors

        trained = self._artifacts["train"]

        def make(folder: Path, _: str) -> Mapping[str, Any]:
            counts = {}
            for entities in ("users", "items"):
                vectors = np.load(trained.folder / f"{entities[:-1]}_vectors.npy", mmap_mode="r")
                path = folder / f"{entities}.parquet"
                counts[f"num_{entities}"] = export_vectors(self._catalog, entities, vectors, path)
            return counts

        inputs = {"catalog": self._catalog.digest, "train": trained.digest}
        self._build("export", {}, inputs, make, folder=self._out / "export")

    def _train_model(self, stage: str, settings: TrainingSettings, behavior: str) -> None:
        from egra_dist.train.launch import launch
        from egra_dist.train.worker import train_worker

        graphs = self._graph_paths(settings, behavior)

        def make(folder: Path, run_id: str) -> Mapping[str, Any]:
            recording = Recording(self._experiment.uri, run_id, self._experiment.spool)
            self._connect()
            task = self._task(stage, settings, graphs, folder, recording)
            launch(train_worker, task, self._config.cluster)
            return json.loads((folder / "training.json").read_text())

        artifact = self._build(
            stage,
            {**settings.model_dump(mode="json"), "seed": self._config.seed},
            {name: self._artifacts[name].digest for name in {"graphs", behavior}},
            make,
            resumable=True,
        )
        self._trained[stage] = self._task(stage, settings, graphs, artifact.folder)

    def _graph_paths(self, settings: TrainingSettings, behavior: str) -> GraphPaths:
        graphs, merged = self._artifacts["graphs"].folder, self._artifacts[behavior].folder
        features = self._artifacts["graphs"].manifest.settings["modalities"]
        seen = (settings.model.modalities or features) if settings.model.uses_modalities else []
        return GraphPaths(
            training=graphs / "training",
            plain=graphs / "plain",
            behavior=merged / ("plain" if behavior == "graphs" else "behavior"),
            features={name: graphs / "features" / name for name in seen},
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
            verbosity=self._verbosity,
        )

    def _build(
        self,
        kind: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        make: Callable[[Path, str], Mapping[str, Any]],
        folder: Path | None = None,
        resumable: bool = False,
    ) -> Artifact:
        """Builds an artifact as a child run of MLflow; ``make`` is given the run's id."""
        digest = digest_of(kind, settings, inputs)

        def record(partial: Path) -> Mapping[str, Any]:
            tags = {"digest": digest, "dataset_digest": self._catalog.digest}
            with self._experiment.stage(kind, settings, tags) as run_id:
                counts = make(partial, run_id)
                self._experiment.log_dict(dict(counts), "counts.json", run_id)
                return counts

        folder = folder or self._out / "artifacts" / f"{kind}-{digest}"
        artifact = build(folder, kind, settings, inputs, record, resumable)
        self._artifacts[kind] = artifact
        return artifact

    def _connect(self) -> None:
        from egra_dist.cluster.session import ray_session

        self._resources.enter_context(ray_session(self._config.cluster, self._verbosity > 0))

    def _prepare_folder(self) -> None:
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            settings = self._config.model_dump(mode="json")
            (self._out / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        except OSError as error:
            raise UserError(f"{self._out}: cannot be written: {error.strerror}") from None

    def _open_experiment(self) -> Any:
        from egra_dist.tracking.experiment import Experiment

        tracking = self._config.tracking
        experiment = Experiment.open(
            tracking.uri,
            self._out,
            tracking.experiment,
            tracking.run_name,
            tags={
                "dataset": self._catalog.path.name,
                "dataset_digest": self._catalog.digest,
                "model": self._config.train.model.name,
                "seed": str(self._config.seed),
                "num_workers": str(self._config.cluster.num_workers),
            },
            params=self._config.model_dump(mode="json"),
        )
        return self._resources.enter_context(experiment)
