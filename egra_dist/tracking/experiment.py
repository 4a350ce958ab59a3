"""The driver's side of tracking: one parent run per pipeline run, one child per stage."""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from egra_dist.artifact import write_json
from egra_dist.tracking.client import default_uri, reason, resolve_uri, without_password
from egra_dist.tracking.facts import facts
from egra_dist.tracking.ledger import LEDGER, Ledger, RunEntry, now_ms
from egra_dist.tracking.mirror import SPOOL, Mirror, lock_folder
from egra_dist.tracking.names import clean_name, flatten
from egra_dist.tracking.spool import Spool, SpoolWriter

logger = logging.getLogger(__name__)

_PARENT = ""
_MAX_PARAM_LENGTH = 500
_RETRY_SECONDS = 30.0
_LONGEST_WAIT_SECONDS = 30.0


class Experiment:
    """Records a pipeline run in MLflow, and goes on quietly when MLflow is away.

    What ought to be in MLflow is written to the run folder first; one background thread brings
    MLflow in line. What did not arrive is delivered by the next start in the same run folder or by
    ``egra-dist track sync RUN``. Use as a context manager: the status is set however it ends.

    Attributes:
        uri: Tracking URI, for the workers' ``MetricRecorder``.
        spool: Folder of the spools, for the workers' ``MetricRecorder``.
    """

    def __init__(self, run_folder: Path, ledger: Ledger, uri: str) -> None:
        self.uri = uri
        self.spool = run_folder / SPOOL
        self._folder = run_folder
        self._ledger = ledger
        self._mirror = Mirror(run_folder, ledger, uri)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._away_since: float | None = None
        self._warned = False
        self._folder_lock = lock_folder(run_folder)

    @classmethod
    def open(
        cls,
        uri: str | None,
        run_folder: Path,
        name: str,
        run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Self:
        """Starts the parent run, or goes on with the one that this run folder had.

        Args:
            uri: Tracking URI; ``MLFLOW_TRACKING_URI``, else a sqlite file in the run folder, when
                not given.
            run_folder: Folder of the pipeline run; created when absent.
            name: Name of the MLflow experiment.
            run_name: Name of the parent run; the run folder's name when not given.
            tags: What to filter by. Versions, git state and the machine are added.
            params: Nested settings.

        Raises:
            UserError: If MLflow cannot record at this URI.
        """
        run_folder.mkdir(parents=True, exist_ok=True)
        wanted = resolve_uri(uri)
        ledger = _ledger_for(run_folder, wanted, name)
        experiment = cls(run_folder, ledger, wanted or default_uri(run_folder))
        experiment._begin(_PARENT, run_name or run_folder.name, params, {**facts(), **(tags or {})})
        return experiment

    @property
    def run_id(self) -> str:
        """Identity of the parent run."""
        wait([self._pushed], _LONGEST_WAIT_SECONDS)
        return self._ledger.runs[_PARENT].id

    def child(
        self,
        stage: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Starts the run of a stage, or goes on with the one that it had.

        Args:
            stage: Name of the stage, also the run's name.
            params: Nested settings of the stage.
            tags: What to filter by.

        Returns:
            MLflow's run id. While MLflow is away a key that this class and ``MetricRecorder``
            understand in its place.
        """
        assert stage != _PARENT
        self._begin(stage, stage, params, {"stage": stage, **(tags or {})})
        wait([self._pushed], _LONGEST_WAIT_SECONDS)
        return self._ledger.runs[stage].id

    @contextmanager
    def stage(
        self,
        stage: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Iterator[str]:
        """:meth:`child` for a block, which decides the run's status."""
        run_id = self.child(stage, params, tags)
        try:
            yield run_id
        except BaseException as error:
            self.end(run_id, _status(error))
            raise
        self.end(run_id)

    def end(self, run_id: str, status: str = "FINISHED") -> None:
        """Ends a run: ``FINISHED``, ``FAILED`` or ``KILLED``."""
        with self._mirror.lock:
            self._entry(run_id).end(status)
        self._save_and_push()

    def set_tags(self, tags: Mapping[str, str], run_id: str | None = None) -> None:
        """Sets tags of a run; of the parent when none is named."""
        cleaned = {clean_name(name): str(value) for name, value in tags.items()}
        with self._mirror.lock:
            self._entry(run_id).add({}, cleaned)
        self._save_and_push()

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, run_id: str | None = None
    ) -> None:
        """Records metrics of a run that no ``MetricRecorder`` is recording now."""
        writer = SpoolWriter(Spool(self.spool, self._entry(run_id).key))
        writer.append(step, {clean_name(name): float(value) for name, value in metrics.items()})
        writer.close()
        self._push_soon()

    def log_dict(self, content: Any, path: str, run_id: str | None = None) -> None:
        """Records JSON as an artifact, e.g. under ``"plan/sharding.json"``."""
        with self._mirror.lock:
            write_json(self._outgoing(path, self._entry(run_id)), content)
        self._push_soon()

    def log_text(self, text: str, path: str, run_id: str | None = None) -> None:
        """Records text as an artifact."""
        with self._mirror.lock:
            self._outgoing(path, self._entry(run_id)).write_text(text)
        self._push_soon()

    def log_artifact(self, file: Path, folder: str = "", run_id: str | None = None) -> None:
        """Records a copy of a file as an artifact; meant for small files."""
        with self._mirror.lock:
            shutil.copy(file, self._outgoing(f"{folder}/{file.name}", self._entry(run_id)))
        self._push_soon()

    def close(self, status: str = "FINISHED", timeout: float = 30.0) -> bool:
        """Ends all runs and delivers what can be delivered in time.

        Returns:
            Whether MLflow has everything.
        """
        with self._mirror.lock:
            for entry in self._ledger.runs.values():
                entry.end(status)
        self._away_since = None
        self._save_and_push()
        wait([self._delivered], timeout)
        arrived = self._delivered.done() and self._delivered.result()
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._folder_lock.close()
        if not arrived:
            logger.warning("MLflow lacks some of it; later: egra-dist track sync %s", self._folder)
        return arrived

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(_status(error) if error else "FINISHED")

    def _begin(
        self, stage: str, name: str, params: Mapping[str, Any] | None, tags: Mapping[str, str]
    ) -> None:
        with self._mirror.lock:
            entry = self._ledger.runs.setdefault(stage, RunEntry(stage, name))
            entry.begin()
            short = self._short(flatten(params or {}), entry)
            entry.add(short, {clean_name(name): str(value) for name, value in tags.items()})
        self._save_and_push()

    def _short(self, params: Mapping[str, str], entry: RunEntry) -> dict[str, str]:
        """Long values go to artifacts, since stores cut them, or refuse them."""
        short = dict(params)
        for name, value in params.items():
            if len(value) > _MAX_PARAM_LENGTH:
                path = f"params/{name}.txt"
                self._outgoing(path, entry).write_text(value)
                short[name] = f"{value[: _MAX_PARAM_LENGTH // 2]}... (all of it: {path})"
        return short

    def _outgoing(self, path: str, entry: RunEntry) -> Path:
        """Where a file waits that is to become the artifact ``path``."""
        file = self.spool / entry.key / path
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def _entry(self, run_id: str | None) -> RunEntry:
        entry = self._ledger.find(run_id) if run_id else self._ledger.runs[_PARENT]
        assert entry is not None, f"no run of this experiment: {run_id}"
        return entry

    def _save_and_push(self) -> None:
        self._mirror.save()
        self._push_soon()

    def _push_soon(self) -> None:
        self._pushed = self._thread.submit(self._push)
        self._delivered = self._thread.submit(self._deliver)

    def _is_away(self) -> bool:
        """Asked again at every occasion, a dead server would take seconds each time."""
        since = self._away_since
        return since is not None and time.monotonic() - since < _RETRY_SECONDS

    def _push(self) -> None:
        if self._is_away():
            return
        try:
            self._mirror.push()
            self._away_since = None
        except Exception as error:
            # Whatever MLflow, a database driver or the network raises: the pipeline goes on.
            self._away_since = time.monotonic()
            if not self._warned:
                self._warned = True
                logger.warning("MLflow is away at %s: %s", self.uri, reason(error))

    def _deliver(self) -> bool:
        return self._away_since is None and self._mirror.deliver_metrics()


def _status(error: BaseException) -> str:
    return "KILLED" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "FAILED"


def _ledger_for(run_folder: Path, uri: str | None, name: str) -> Ledger:
    """The ledger to go on with; one for another MLflow is put aside."""
    shown = without_password(uri) if uri else None
    ledger = Ledger.read(run_folder)
    if ledger and (ledger.uri, ledger.experiment) == (shown, name):
        return ledger
    if ledger:
        (run_folder / LEDGER).rename(run_folder / f"{LEDGER}.{now_ms()}")
    return Ledger(shown, name)
