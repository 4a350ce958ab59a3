"""The export: the last stage of a run, and a verb for runs that finished."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from egra_dist.artifact import Artifact
from egra_dist.catalog.catalog import Catalog
from egra_dist.cluster.tasks import ray_map
from egra_dist.config import Config, ExportSettings, load_config
from egra_dist.errors import UserError
from egra_dist.graph.buckets import Map
from egra_dist.manifest import read_manifest
from egra_dist.serve.batch import write_lists
from egra_dist.serve.data import Trained, write_data
from egra_dist.serve.explain import Explainer
from egra_dist.serve.export import export_vectors
from egra_dist.serve.model import DATA, save_model
from egra_dist.serve.registry import Registration, register_model
from egra_dist.train.task import SHARES
from egra_dist.workspace import ARTIFACTS, Workspace

MODEL = "model"
LISTS = "top_k"
USERS = "users"
"""Its Parquet files; a folder of nothing else, so that it is read as one table."""
_EXPORTED = ("graphs", "train", "history")
"""What an export is made from; the last is only there where the settings ask for it."""
_OF_EXPORTS = ("export", "cluster", "tracking")
_USERS_WORTH_RAY = 200_000
"""Below it one process makes their lists in about the time that Ray takes to start."""


@dataclass(frozen=True)
class FinishedRun:
    """A run whose training is done.

    Attributes:
        folder: The run folder.
        config: Its settings.
        places: What ``artifacts.json`` names.
    """

    folder: Path
    config: Config
    places: Mapping[str, str]

    @classmethod
    def open(cls, folder: Path, overrides: Sequence[str] = ()) -> "FinishedRun":
        """Reads a run folder.

        Args:
            folder: The run folder.
            overrides: Settings that differ from the run's, as ``KEY=VALUE``.

        Raises:
            UserError: If it is not the folder of a run, its training is not finished, or an
                override is of what was trained.
        """
        for override in overrides:
            if override.partition(".")[0] not in _OF_EXPORTS:
                name = override.partition("=")[0]
                raise UserError(
                    f"--set {name}: the run is trained; sections that an export has: "
                    f"{', '.join(_OF_EXPORTS)}"
                )
        try:
            places = json.loads((folder / ARTIFACTS).read_text())
        except (OSError, ValueError):
            raise UserError(
                f"{folder}: not a run folder (it has no readable {ARTIFACTS})"
            ) from None
        return cls(folder, load_config(folder / "config.yaml", overrides), places)

    def open_catalog(self, path: Path | None = None) -> Catalog:
        """What it learned from.

        Args:
            path: Where that is now; where the run found it when not given.

        Raises:
            UserError: If it is not there, or another one is.
        """
        where = path or self.places.get("catalog")
        if where is None:
            raise UserError(f"{self.folder}: does not say where its catalogue is; give --catalog")
        catalog = Catalog.open(Path(where))
        if catalog.digest != self.artifact("train").manifest.inputs["catalog"]:
            raise UserError(f"{where}: not the catalogue that {self.folder} was trained on")
        return catalog

    def artifact(self, kind: str) -> Artifact:
        """What a stage has left.

        Raises:
            UserError: If it is not there.
        """
        if kind not in self.places:
            raise UserError(f"{self.folder}: the stage {kind} was not run; see egra-dist run")
        folder = Path(self.places[kind])
        return Artifact(folder, read_manifest(folder, kind))


def export_run(
    run: FinishedRun, catalog: Catalog, registered: bool, verbosity: int = 0
) -> dict[str, Any]:
    """Exports a run that finished, or what of it is not yet done.

    Args:
        run: The run.
        catalog: What it learned from.
        registered: Whether the model goes to MLflow; under ``export.model_name``, else under the
            name of the experiment.
        verbosity: 0, or more to see what the libraries say.

    Returns:
        Counts and the recall of the index; where the model was registered, its version.
    """
    config, settings = run.config, run.config.export
    name = settings.model_name or config.tracking.experiment
    named = settings.model_copy(update={"model_name": name if registered else None})
    config = config.model_copy(update={"export": named})
    artifacts = {name: run.artifact(name) for name in _EXPORTED if name in run.places}
    with Workspace(config, catalog, run.folder, verbosity, places=run.places) as workspace:
        return export(workspace, catalog, artifacts, config.export)


def open_explainer(run: Path) -> Explainer:
    """Opens what a run exported, to recommend and say why.

    Raises:
        UserError: If it exported nothing.
    """
    finished = FinishedRun.open(run)
    data = run / "export" / MODEL / DATA
    if not data.is_dir():
        raise UserError(f"{run}: has no exported model; first: egra-dist export {run}")
    _check_same_training(finished)
    shares = Path(finished.places.get("train", run)) / SHARES
    graph = Path(finished.places.get("knn", run))
    from egra_dist.serve.egra_model.recommender import Recommender

    return Explainer(Recommender.open(data), data, shares, graph)


def _check_same_training(run: FinishedRun) -> None:
    """Refuses an export of another training than the one that the run has now."""
    exported = read_manifest(run.folder / "export", "export").inputs.get("train")
    now = Path(run.places.get("train", "")).name
    if now and exported and not now.endswith(exported):
        raise UserError(
            f"{run.folder}: its export is of an earlier training; first: egra-dist export "
            f"{run.folder}"
        )


def export(
    workspace: Workspace,
    catalog: Catalog,
    artifacts: Mapping[str, Artifact],
    settings: ExportSettings,
) -> dict[str, Any]:
    """Leaves vectors, index and model; lists of all users and a registered model where wanted.

    Args:
        workspace: The run.
        catalog: What it learned from.
        artifacts: What it left; ``train`` and ``graphs`` are needed, ``history`` is read if there.
        settings: What is wanted.

    Returns:
        Counts and the recall of the index; where the model was registered, its version.
    """
    inputs = {name: artifacts[name] for name in _EXPORTED if name in artifacts}
    trained = Trained(
        replace(catalog, features_folder=None),
        inputs["train"].folder,
        inputs["graphs"].folder / "training",
        workspace.config.seed,
    )
    if "history" in inputs:
        history = inputs["history"]
        decay = history.manifest.counts["decay"]
        trained = replace(trained, users=history.folder, decay=decay)
    exported = workspace.build(
        "export",
        settings.shaping,
        inputs,
        workspace.recorded(lambda folder: _write(trained, settings, folder), "export"),
        folder=workspace.folder / "export",
    )
    facts = dict(exported.manifest.counts)
    if settings.top_k is not None:
        facts["num_lists"] = _write_all_lists(workspace, catalog, exported, settings.top_k)
    if settings.model_name is not None:
        where = Registration(settings.model_name, settings.alias, exported.digest)
        version = register_model(exported.folder / MODEL, workspace.experiment, where)
        facts |= {"name": where.name, "alias": where.alias, "version": version}
    return facts


def _write(trained: Trained, settings: ExportSettings, folder: Path) -> dict[str, Any]:
    counts = {
        f"num_{entities}": export_vectors(
            trained.catalog, entities, trained.vectors(entities), folder / entities
        )
        for entities in ("users", "items")
    }
    index = write_data(trained, settings, folder / "data")
    save_model(folder / "data", folder / MODEL)
    return {**counts, "index": index}


def _write_all_lists(workspace: Workspace, catalog: Catalog, exported: Artifact, k: int) -> int:
    data = exported.folder / MODEL / DATA

    def make(folder: Path) -> dict[str, Any]:
        run = _map(workspace, catalog)
        (folder / USERS).mkdir()
        written = write_lists(data, exported.digest, catalog.num_users, k, folder / USERS, run)
        return {"num_lists": written}

    lists = workspace.build(
        LISTS,
        {"k": k},
        {"export": exported},
        workspace.recorded(make, "export"),
        folder=workspace.folder / LISTS,
    )
    return int(lists.manifest.counts["num_lists"])


def _map(workspace: Workspace, catalog: Catalog) -> Map:
    """Who makes the lists: all CPUs of the session where there is enough to do, or a cluster."""
    has_cluster = workspace.config.cluster.address is not None
    if not has_cluster and catalog.num_users < _USERS_WORTH_RAY:
        return map
    workspace.connect()
    return ray_map
