"""Brings MLflow in line with the ledger: runs, parameters, tags, artifacts, status, metrics."""

import fcntl
import threading
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from egra_dist.errors import UserError
from egra_dist.tracking.client import default_uri, open_client
from egra_dist.tracking.datasets import as_input
from egra_dist.tracking.delivery import Delivery
from egra_dist.tracking.ledger import Ledger, RunEntry
from egra_dist.tracking.outbox import Outbox
from egra_dist.tracking.spool import Spool

if TYPE_CHECKING:
    from mlflow import MlflowClient

SPOOL = "spool"
KEY_TAG = "egra_dist.key"
PARENT_TAG = "mlflow.parentRunId"
_MAX_PER_BATCH = 100
_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Without it MLflow's page guesses, and may open what it has for language models."""


class Mirror:
    """Brings MLflow in line with a ledger that may go on changing meanwhile.

    Args:
        run_folder: Where the ledger and the spools are.
        ledger: The runs as they ought to be.
        uri: Tracking URI of MLflow.

    Attributes:
        lock: To be held while the ledger is changed.
        outbox: Artifacts on their way.
    """

    def __init__(self, run_folder: Path, ledger: Ledger, uri: str) -> None:
        self.lock = threading.Lock()
        self.outbox = Outbox(run_folder / SPOOL)
        self._folder = run_folder
        self._ledger = ledger
        self._uri = uri
        self._client: MlflowClient | None = None
        self._experiment_id: str | None = None

    def save(self) -> None:
        """Writes the ledger to its file."""
        with self.lock:
            self._ledger.write(self._folder)

    def push(self) -> None:
        """Tells MLflow what it has yet to hear; raises what MLflow raises."""
        client = self._client = self._client or open_client(self._uri)
        with self.lock:
            entries = list(self._ledger.runs.values())
        for entry in entries:
            if entry.run_id is None:
                self._create(client, entry)
            if entry.changed:
                self._update(client, entry)
            assert entry.run_id is not None
            self.outbox.deliver(entry.key, partial(_log_artifacts, client, entry.run_id))

    def deliver_metrics(self) -> bool:
        """Delivers all spools; returns whether nothing is left."""
        folder = self._folder / SPOOL
        with self.lock:
            keys = [entry.key for entry in self._ledger.runs.values()]
        spools = [Spool(folder, key) for key in keys]
        return all(Delivery(self._uri, s).deliver() for s in spools if s.path.exists())

    def _create(self, client: "MlflowClient", entry: RunEntry) -> None:
        experiment_id = self._experiment_id = self._experiment_id or self._experiment(client)
        run_id = _find_by_key(client, experiment_id, entry.key) if entry.asked else None
        if run_id is None:
            entry.asked = True
            self.save()
            parent = {PARENT_TAG: self._ledger.runs[""].run_id} if entry.stage else {}
            run = client.create_run(
                experiment_id, entry.start_time, {KEY_TAG: entry.key, **parent}, entry.name
            )
            run_id = run.info.run_id
        entry.run_id = run_id
        self.save()

    def _experiment(self, client: "MlflowClient") -> str:
        from mlflow.exceptions import MlflowException

        name = self._ledger.experiment
        own_store = self._uri == default_uri(self._folder)
        root = (self._folder.absolute() / "mlartifacts").as_uri() if own_store else None
        found = client.get_experiment_by_name(name)
        if found:
            for tag in _KIND.keys() - found.tags.keys():
                with suppress(MlflowException):  # who may record need not be allowed to
                    client.set_experiment_tag(found.experiment_id, tag, _KIND[tag])
            return found.experiment_id
        try:
            return client.create_experiment(name, artifact_location=root, tags=_KIND)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # Another process was first?
            if found is None:
                raise
            return found.experiment_id

    def _update(self, client: "MlflowClient", entry: RunEntry) -> None:
        assert entry.run_id is not None
        with self.lock:
            wanted, entry.changed = deepcopy(entry), False
        try:
            _log_in_batches(client, entry.run_id, wanted.params, wanted.tags)
            if wanted.datasets:
                client.log_inputs(entry.run_id, list(map(as_input, wanted.datasets)))
            if wanted.end_time is None:
                client.update_run(entry.run_id, status=wanted.status)
            else:
                client.set_terminated(entry.run_id, wanted.status, wanted.end_time)
        except Exception:
            entry.changed = True
            raise
        finally:
            self.save()


def lock_folder(run_folder: Path) -> IO[str]:
    """Says that this process records to a run folder, until the returned file is closed.

    Raises:
        UserError: If another process does.
    """
    spool = run_folder / SPOOL
    spool.mkdir(parents=True, exist_ok=True)
    file = (spool / "lock").open("a")  # were it a link, "w" would empty another file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(f"{run_folder}: another process is running in this folder") from None
    return file


def _find_by_key(client: "MlflowClient", experiment_id: str, key: str) -> str | None:
    runs = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    return runs[0].info.run_id if runs else None


def _log_in_batches(
    client: "MlflowClient", run_id: str, params: Mapping[str, str], tags: Mapping[str, str]
) -> None:
    from mlflow.entities import Param, RunTag

    all_params = [Param(name, value) for name, value in params.items()]
    all_tags = [RunTag(name, value) for name, value in tags.items()]
    for start in range(0, max(len(all_params), len(all_tags)), _MAX_PER_BATCH):
        part = slice(start, start + _MAX_PER_BATCH)
        client.log_batch(run_id, params=all_params[part], tags=all_tags[part], synchronous=True)


def _log_artifacts(client: "MlflowClient", run_id: str, folder: Path) -> None:
    client.log_artifacts(run_id, str(folder))
