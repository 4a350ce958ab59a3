"""The model in MLflow: logged to the run that made it, registered, and named by an alias."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from egra_dist.errors import UserError
from egra_dist.tracking.client import open_client, reason
from egra_dist.tracking.experiment import Experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient

_DIGEST = "egra_dist.digest"


@dataclass(frozen=True)
class Registration:
    """Where a model goes in the registry.

    Attributes:
        name: Of the registered model.
        alias: Which then names this version.
        digest: Identity of the content: equal models are registered once.
    """

    name: str
    alias: str
    digest: str


def register_model(folder: Path, experiment: Experiment, where: Registration) -> int:
    """Brings a model folder to MLflow, unless it is there, and moves the alias to it.

    Args:
        folder: The model folder.
        experiment: The run that it belongs to.
        where: Name and alias.

    Returns:
        The version.

    Raises:
        UserError: If MLflow cannot be reached or refuses it.
    """
    try:
        client = open_client(experiment.uri)
        version = _find(client, where) or _log(client, folder, experiment.run_id, where)
        client.set_registered_model_alias(where.name, where.alias, str(version))
    except Exception as error:
        # MLflow, database drivers and the network each raise their own kinds.
        raise UserError(
            f"{folder}: whole, but MLflow at {experiment.uri} did not take it: {reason(error)}; "
            f"try egra-dist export again"
        ) from error
    return version


def _find(client: "MlflowClient", where: Registration) -> int | None:
    versions = client.search_model_versions(f"name = '{where.name}'")
    return next((int(v.version) for v in versions if v.tags.get(_DIGEST) == where.digest), None)


def _log(client: "MlflowClient", folder: Path, run_id: str, where: Registration) -> int:
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    experiment_id = client.get_run(run_id).info.experiment_id
    tags = {_DIGEST: where.digest}
    logged = client.create_logged_model(experiment_id, where.name, run_id, tags)
    client.log_model_artifacts(logged.model_id, str(folder))
    described = Model.load(str(folder))
    described.run_id, described.model_id, described.model_uuid = run_id, *[logged.model_id] * 2
    described.artifact_path = logged.artifact_location
    with TemporaryDirectory() as work:
        described.save(str(Path(work) / "MLmodel"))
        client.log_model_artifact(logged.model_id, str(Path(work) / "MLmodel"))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    try:
        client.create_registered_model(where.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        where.name,
        logged.artifact_location,  # models:/ID would be looked for in the global tracking URI
        run_id,
        tags,
        model_id=logged.model_id,
    )
    return int(version.version)
