"""Reads back what was recorded, for comparisons and tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from egra_dist.errors import UserError
from egra_dist.tracking.client import open_client, reason
from egra_dist.tracking.spool import Value

if TYPE_CHECKING:
    from mlflow.entities import Run

_PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class RecordedRun:
    """One MLflow run.

    Attributes:
        run_id: MLflow's id.
        name: The run's name.
        status: ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``.
        parent_id: Id of the pipeline's run; None for that run itself.
        params: Settings by dotted name.
        tags: Tags, MLflow's own included.
        metrics: Value at the highest step of each metric.
        seconds: From its start to its end; None while it runs.
    """

    run_id: str
    name: str
    status: str
    parent_id: str | None
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    seconds: float | None = None


class Records:
    """What one MLflow holds.

    Args:
        uri: Tracking URI.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client = open_client(uri)

    def run(self, run_id: str) -> RecordedRun:
        """One run.

        Raises:
            UserError: If there is none with this id.
        """
        from mlflow.exceptions import MlflowException

        try:
            return _recorded(self._client.get_run(run_id))
        except MlflowException as error:
            raise UserError(f"run {run_id}: {reason(error)}") from None

    def runs(self, experiment: str, condition: str = "") -> list[RecordedRun]:
        """The runs of an experiment, newest first.

        Args:
            experiment: Name of the MLflow experiment.
            condition: Filter in MLflow's language, e.g. ``"tags.stage = 'train'"``.

        Raises:
            UserError: If there is no such experiment, or MLflow does not understand the filter.
        """
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(experiment)
        if found is None:
            raise UserError(f"experiment {experiment!r}: MLflow has none of this name")
        runs: list[RecordedRun] = []
        token: str | None = None
        while True:
            try:
                page = self._client.search_runs([found.experiment_id], condition, page_token=token)
            except MlflowException as error:
                raise UserError(f"filter {condition!r}: {reason(error)}") from None
            runs += [_recorded(run) for run in page]
            token = page.token
            if not token:
                return runs

    def children(self, run: RecordedRun) -> dict[str, RecordedRun]:
        """The runs of a pipeline's stages, by stage; of several the newest."""
        experiment_id = self._client.get_run(run.run_id).info.experiment_id
        condition = f"tags.`{_PARENT_TAG}` = '{run.run_id}'"
        found = self._client.search_runs([experiment_id], condition, order_by=["start_time ASC"])
        return {child.tags.get("stage", child.name): child for child in map(_recorded, found)}

    def log_files(self, run_id: str, folder: Path, path: str) -> None:
        """Adds the files of a folder to a run's artifacts, under a path."""
        self._client.log_artifacts(run_id, str(folder), path)

    def new_run(self, like: RecordedRun, name: str, tags: Mapping[str, str]) -> str:
        """Makes a finished run in the experiment of another one; returns its id."""
        experiment_id = self._client.get_run(like.run_id).info.experiment_id
        run = self._client.create_run(experiment_id, tags=dict(tags), run_name=name)
        self._client.set_terminated(run.info.run_id)
        return run.info.run_id

    def series(self, run_id: str, metric: str) -> list[Value]:
        """All values of a metric, by step; empty when it was never recorded."""
        history = self._client.get_metric_history(run_id, metric)
        return sorted(Value(point.step, point.value) for point in history)


def _recorded(run: "Run") -> RecordedRun:
    return RecordedRun(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        parent_id=run.data.tags.get(_PARENT_TAG),
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        metrics=dict(run.data.metrics),
        seconds=(run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else None,
    )
