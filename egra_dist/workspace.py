"""What the stages of a run share: its folder, its record in MLflow, and Ray where one needs it."""

import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import yaml

from egra_dist.artifact import Artifact, build, is_finished
from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.described import as_dataset
from egra_dist.catalog.remote import fetch_catalog
from egra_dist.cluster.session import ray_session
from egra_dist.cluster.tasks import on_every_node
from egra_dist.config import Config
from egra_dist.errors import UserError
from egra_dist.files import write_json
from egra_dist.manifest import digest_of
from egra_dist.redaction import redacted
from egra_dist.storage import CHECKPOINTS, Storage, fetch_artifact, push_artifact
from egra_dist.tracking.datasets import dataset
from egra_dist.tracking.experiment import Experiment
from egra_dist.tracking.facts import facts, packages
from egra_dist.tracking.kept import fetch_record, push_record
from egra_dist.tracking.names import numbers_and_words

_log = logging.getLogger(__name__)

CONFIG = "config.yaml"
ARTIFACTS = "artifacts.json"
"""Names, in a run folder, the catalogue and the artifact of each stage so far: finished, or being
made."""
ARTIFACTS_FOLDER = "artifacts"
_CHANGES_NO_RESULT = {"cluster", "tracking", "export", "evaluation", "history", "baselines"}
"""Sections without effect on what the run is about: the model that it trains."""


class Workspace:
    """One run's folder, open for work. Use as a context manager.

    Args:
        config: All settings.
        catalog: What the run learns from.
        out: The run folder; created when absent.
        verbosity: 0, or more to see what the libraries say.
        artifacts: Where the results of stages are kept, perhaps shared with other runs;
            ``artifacts`` in the run folder when not given.
        tags: More tags of the run in MLflow.
        places: What :data:`ARTIFACTS` of a finished run names, to be kept.
        storage: Where finished artifacts, checkpoints and the record are copied to, and come from.

    Raises:
        UserError: If the folder cannot be written.
    """

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        out: Path,
        verbosity: int = 0,
        artifacts: Path | None = None,
        tags: Mapping[str, str] | None = None,
        places: Mapping[str, str] | None = None,
        storage: Storage | None = None,
    ) -> None:
        self.storage = storage
        self.config = config
        self.catalog = catalog
        self.folder = out.resolve()
        self.verbosity = verbosity
        self.artifacts = (artifacts or out / ARTIFACTS_FOLDER).resolve()
        self._places = {"catalog": str(catalog.path.resolve()), **(places or {})}
        self._resources = ExitStack()
        self._dataset = as_dataset(catalog)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            settings = yaml.safe_dump(redacted(config.model_dump(mode="json")), sort_keys=False)
            self._places = {**_places_of_the_same(self.folder, settings, catalog), **self._places}
            (self.folder / CONFIG).write_text(settings)
        except OSError as error:
            raise UserError(f"{out}: cannot be written: {error.strerror}") from None
        self._tags = {**self._own_tags(), **_own(tags or {})}
        if storage:
            fetch_record(storage, self.folder)
        self.experiment = self._open_experiment(tags or {})

    def __enter__(self) -> Self:
        self._resources.enter_context(self.experiment)
        self.experiment.log_artifact(self.folder / CONFIG)
        self.experiment.log_text(packages(), "environment/packages.txt")
        self.experiment.log_dict(facts(), "environment/facts.json")
        self.experiment.log_datasets([self._dataset])
        return self

    def __exit__(self, *error: Any) -> None:
        self._resources.__exit__(*error)
        if self.storage:
            push_record(self.storage, self.folder)

    def connect(self) -> None:
        """Makes sure that there is a Ray session; it ends with the workspace."""
        self._resources.enter_context(ray_session(self.config.cluster, self.verbosity > 0))
        if self.catalog.uri and self.config.cluster.cache:
            on_every_node(fetch_catalog, self.catalog.uri, self.catalog.path.parent)

    def build(
        self,
        kind: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Artifact],
        make: Callable[[Path, str], Mapping[str, Any]],
        folder: Path | None = None,
        resumable: bool = False,
    ) -> Artifact:
        """Builds an artifact, unless it is there, as a child run in MLflow.

        Args:
            kind: What it holds; also the name of the child run.
            settings: JSON-serialisable settings that shape it.
            inputs: What it is made from, beside the catalogue.
            make: Given a folder and the id of the MLflow run, writes the content and returns
                counts.
            folder: Where it stands; named by its digest when not given.
            resumable: Whether a failed attempt's folder is kept to go on in.
        """
        digests = {name: artifact.digest for name, artifact in inputs.items()}
        digests["catalog"] = self.catalog.digest
        digest = digest_of(kind, settings, digests)
        tags = {**self._tags, "digest": digest, **_model_tag(settings)}
        datasets = [self._dataset, *(_as_dataset(artifact) for artifact in inputs.values())]

        def record(partial: Path) -> Mapping[str, Any]:
            with self.experiment.stage(kind, settings, tags) as run_id:
                self.experiment.log_datasets(datasets, run_id)
                counts = make(partial, run_id)
                self.experiment.log_dict(dict(counts), "counts.json", run_id)
            return counts

        stored = self.stored(kind if folder else f"{ARTIFACTS_FOLDER}/{kind}-{digest}")
        folder = folder or self.artifacts / f"{kind}-{digest}"
        self._places[kind] = str(folder)
        write_json(self.folder / ARTIFACTS, self._places)
        if stored and not is_finished(folder, kind, digest):
            fetch_artifact(stored, folder, digest, resumable)
        artifact = build(folder, kind, settings, digests, record, resumable)
        if stored and self.storage:
            push_artifact(stored, artifact)
            push_record(self.storage, self.folder)
        return artifact

    def stored(self, name: str) -> Storage | None:
        """Where something is kept beyond this machine, if anything is."""
        return self.storage.at(name) if self.storage else None

    def checkpoints_of(self, stage: str) -> Storage | None:
        """Where the checkpoints of a training that is being made are kept."""
        name = Path(self._places[stage]).name
        return self.stored(f"{ARTIFACTS_FOLDER}/{name}/{CHECKPOINTS}")

    def recorded(
        self, make: Callable[[Path], Mapping[str, Any]], group: str
    ) -> Callable[[Path, str], Mapping[str, Any]]:
        """``make``, with the facts that it returns as metrics of the stage's run, words as tags.

        Args:
            make: Writes the content into a folder.
            group: Where the names stand: ``graph`` makes ``graph/num_edges``.
        """

        def make_and_record(folder: Path, run_id: str) -> Mapping[str, Any]:
            found = make(folder)
            numbers, words = numbers_and_words(found, f"{group}/")
            self.experiment.log_metrics(numbers, run_id=run_id)
            self.experiment.set_tags(words, run_id)
            return found

        return make_and_record

    def _own_tags(self) -> dict[str, str]:
        """What runs are filtered by."""
        cluster = self.config.cluster
        return {
            "dataset": self.catalog.path.resolve().name,
            "dataset_digest": self.catalog.digest,
            "model": self.config.train.model.name,
            "seed": str(self.config.seed),
            "cluster": cluster.address or os.environ.get("RAY_ADDRESS") or "local",
            "num_workers": str(cluster.num_workers),
        }

    def _open_experiment(self, tags: Mapping[str, str]) -> Experiment:
        tracking = self.config.tracking
        return Experiment.open(
            tracking.uri,
            self.folder,
            tracking.experiment,
            tracking.run_name,
            tags={**self._tags, **tags},
            params=self.config.model_dump(mode="json"),
            identity=_identity(self.config, self.catalog),
        )


def _identity(config: Config, catalog: Catalog) -> str:
    settings = config.model_dump(mode="json", exclude=_CHANGES_NO_RESULT)
    settings["num_users"] = config.evaluation.num_users
    return digest_of("run", settings, {"catalog": catalog.digest})


def _places_of_the_same(folder: Path, settings: str, catalog: Catalog) -> dict[str, str]:
    """What an earlier call has left, if it had the same settings and data.

    So that a call which stops at an early stage does not forget the later ones.
    """
    try:
        places: dict[str, str] = json.loads((folder / ARTIFACTS).read_text())
        is_same = (folder / CONFIG).read_text() == settings
    except (OSError, ValueError):
        return {}
    return places if is_same and places.get("catalog") == str(catalog.path.resolve()) else {}


def _own(tags: Mapping[str, str]) -> dict[str, str]:
    """Those that are not MLflow's: a stage is not below what its run is below."""
    return {name: value for name, value in tags.items() if not name.startswith("mlflow.")}


def _model_tag(settings: Mapping[str, Any]) -> dict[str, str]:
    """The model of a training's own settings, which need not be the one that the run is about."""
    return {"model": settings["model"]["name"]} if "model" in settings else {}


def _as_dataset(artifact: Artifact) -> dict[str, str]:
    manifest = artifact.manifest
    source = str(artifact.folder)
    return dataset(manifest.kind, manifest.digest, source, {}, manifest.counts, "input")
