"""The stages in their order: read this first.

    catalogue -> graphs -> pretrain -> knn -> merge -> train -> evaluate -> export

Every stage writes one artifact, named by the digest of what it was made from; a stage whose
artifact is on disk is not run again. Nothing is computed here: the stages call the rooms.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from egra_dist.artifact import Artifact, Store, write_json
from egra_dist.catalog.catalog import Catalog
from egra_dist.config import Config, ItemGraphSettings, TrainingSettings
from egra_dist.errors import UserError

_log = logging.getLogger(__name__)

STAGES = ("graphs", "pretrain", "knn", "merge", "train", "evaluate", "export")


@dataclass
class Pipeline:
    """One run: a configuration applied to a catalogue.

    Attributes:
        config: All settings.
        catalog: What to learn from.
        out: The run folder.
        verbosity: 0, or more to see what the libraries say.
    """

    config: Config
    catalog: Catalog
    out: Path
    verbosity: int = 0
    _open: ExitStack = field(default_factory=ExitStack)
    _seconds: dict[str, float] = field(default_factory=dict)

    def run(self, last_stage: str = "export") -> dict[str, Any]:
        """Runs the stages up to ``last_stage``.

        Returns:
            What stands in ``metrics.json``.
        """
        self.store = Store(self.out / "artifacts")
        models: dict[str, Artifact] = {}
        with self._open:
            graphs = self._graphs()
            pretrained = self._train("pretrain", self.config.pretrain, graphs, graphs)
            knn = self._knn(pretrained)
            merged = self._merge(graphs, knn)
            trained = self._train("train", self.config.train, graphs, merged)
        return {}

    def _graphs(self) -> Artifact:
        from egra_dist.graph.item import write_graphs

        modalities = self.config.train.model.modalities or list(self.catalog.modalities)
        k = self.config.feature_graph.k
        return self._build(
            "graphs",
            {"modalities": modalities, "k": k},
            {"catalog": self.catalog.digest},
            lambda folder: write_graphs(self.catalog, modalities, k, folder),
        )

    def _train(
        self, stage: str, settings: TrainingSettings, graphs: Artifact, behavior: Artifact
    ) -> Artifact:
        from egra_dist.train.launch import launch
        from egra_dist.train.worker import train_worker

        def make(folder: Path) -> Mapping[str, Any]:
            self._connect()
            launch(
                train_worker,
                self._task(stage, settings, graphs, behavior, folder),
                self.config.cluster,
            )
            return json.loads((folder / "training.json").read_text())

        return self._build(
            stage,
            {**settings.model_dump(mode="json"), "seed": self.config.seed},
            {"graphs": graphs.digest, "behavior": behavior.digest},
            make,
            resumable=True,
        )

    def _knn(self, pretrained: Artifact) -> Artifact:
        from egra_dist.graph.knn import KnnSettings, build_knn

        settings = KnnSettings(k=self.config.item_graph.k, seed=self.config.seed)

        def make(folder: Path) -> Mapping[str, Any]:
            vectors = np.load(pretrained.folder / "item_vectors.npy", mmap_mode="r")
            graph = build_knn(vectors, settings, workdir=folder / "work")
            graph.save(folder)
            return graph.statistics

        return self._build(
            "knn",
            settings.model_dump(mode="json"),
            {"pretrain": pretrained.digest},
            make,
            resumable=True,
        )

    def _merge(self, graphs: Artifact, knn: Artifact) -> Artifact:
        from egra_dist.graph.csr import Csr
        from egra_dist.graph.item import write_merged
        from egra_dist.graph.knn import KnnGraph

        settings = self.config.item_graph
        return self._build(
            "merge",
            settings.model_dump(mode="json"),
            {"graphs": graphs.digest, "knn": knn.digest},
            lambda folder: write_merged(
                Csr.load(graphs.folder / "training"), KnnGraph.load(knn.folder), settings, folder
            ),
        )

    def _task(
        self,
        stage: str,
        settings: TrainingSettings,
        graphs: Artifact,
        behavior: Artifact,
        folder: Path,
    ) -> Any:
        from egra_dist.train.task import GraphPaths, Task

        features = graphs.folder / "features"
        paths = GraphPaths(
            training=(graphs.folder / "training").resolve(),
            plain=(graphs.folder / "plain").resolve(),
            behavior=(behavior.folder / ("plain" if behavior is graphs else "behavior")).resolve(),
            features={path.name: path.resolve() for path in sorted(features.iterdir())}
            if settings.model.uses_modalities and features.exists()
            else {},
        )
        return Task(
            stage=stage,
            catalog=self.catalog.path.resolve(),
            graphs=paths,
            settings=settings,
            evaluation=self.config.evaluation,
            folder=folder.resolve(),
            seed=self.config.seed,
            log_every_steps=self.config.tracking.log_every_steps,
            verbosity=self.verbosity,
        )

    def _connect(self) -> None:
        from egra_dist.cluster.session import ray_session

        self._open.enter_context(ray_session(self.config.cluster, self.verbosity > 0))

    def _build(self, kind: str, *arguments: Any, **options: Any) -> Artifact:
        artifact = self.store.build(kind, *arguments, **options)
        self._seconds[kind] = artifact.seconds
        return artifact
