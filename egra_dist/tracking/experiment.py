"""The driver's side of tracking: one parent run per pipeline run, one child per stage."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from egra_dist.redaction import redact, redacted
from egra_dist.tracking.artifacts import ArtifactLog
from egra_dist.tracking.background import Background
from egra_dist.tracking.client import default_uri, resolve_uri, without_password
from egra_dist.tracking.endings import exit_on_sigterm, status_of
from egra_dist.tracking.facts import facts
from egra_dist.tracking.ledger import LEDGER, Ledger, RunEntry, now_ms
from egra_dist.tracking.mirror import PARENT_TAG, SPOOL, Mirror, lock_folder
from egra_dist.tracking.names import clean_name, flatten
from egra_dist.tracking.spool import Spool, SpoolWriter, Value

logger = logging.getLogger(__name__)

_PARENT = ""
_MAX_PARAM_LENGTH = 500
_LONGEST_WAIT_SECONDS = 10.0
_LONGEST_START_SECONDS = 120.0
"""What others refer to has to be known; a new database may take long, being away seconds."""


class Experiment(ArtifactLog):
    """Records a pipeline run in MLflow, and goes on quietly when MLflow is away.

    What ought to be in MLflow is written to the run folder first; one background thread brings
    MLflow in line. What did not arrive is delivered by the next start in the same run folder or by
    ``egra-dist track sync RUN``. Use as a context manager: the status is set however it ends.

    Attributes:
        uri: Tracking URI, for the workers' ``MetricRecorder``.
        spool: Folder of the spools, for the workers' ``MetricRecorder``.
    """

    def __init__(self, run_folder: Path, ledger: Ledger, uri: str, lock: IO[str]) -> None:
        self.uri = uri
        self.spool = run_folder / SPOOL
        self._folder = run_folder
        self._ledger = ledger
        self._mirror = Mirror(run_folder, ledger, uri)
        self._background = Background(self._mirror, uri)
        self._lock = lock
        self._arrived = False

    @classmethod
    def open(
        cls,
        uri: str | None,
        run_folder: Path,
        name: str,
        run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        identity: str | None = None,
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
            identity: What the run is about: where the folder had a run about something else,
                another one is started.

        Raises:
            UserError: If MLflow cannot record at this URI, or another process is running in the
                folder.
        """
        wanted = resolve_uri(uri)
        lock = lock_folder(run_folder)
        ledger = _ledger_for(run_folder, wanted, name, identity)
        experiment = cls(run_folder, ledger, wanted or default_uri(run_folder), lock)
        experiment._begin(_PARENT, run_name or run_folder.name, params, {**facts(), **(tags or {})})
        return experiment

    @property
    def run_id(self) -> str:
        """Identity of the parent run; our key of it where MLflow is found to be away."""
        self._background.wait_for_runs(_LONGEST_START_SECONDS)
        return self._ledger.runs[_PARENT].id

    @property
    def tags_of_nested_runs(self) -> dict[str, str]:
        """Tags that put the run of another folder below this one; none while MLflow is away."""
        run_id = self.run_id
        return {PARENT_TAG: run_id} if run_id == self._ledger.runs[_PARENT].run_id else {}

    def child(
        self,
        stage: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Starts the run of a stage, or goes on with the one that it had.

        Args:
            stage: Name of the stage; the run's name is the parent's and this.
            params: Nested settings of the stage.
            tags: What to filter by.

        Returns:
            MLflow's run id. While MLflow is away a key that this class and ``MetricRecorder``
            understand in its place.
        """
        assert stage != _PARENT
        name = f"{self._ledger.runs[_PARENT].name}/{stage}"
        self._begin(stage, name, params, {"stage": stage, **(tags or {})})
        self._background.wait_for_runs(_LONGEST_WAIT_SECONDS)
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
            self.end(run_id, status_of(error))
            raise
        self.end(run_id)

    def end(self, run_id: str, status: str = "FINISHED") -> None:
        """Ends a run: ``FINISHED``, ``FAILED`` or ``KILLED``."""
        with self._mirror.lock:
            self._entry(run_id).end(status)
        self._save_and_push()

    def set_tags(self, tags: Mapping[str, str], run_id: str | None = None) -> None:
        """Sets tags of a run; of the parent when none is named."""
        with self._mirror.lock:
            self._entry(run_id).add({}, _clean_tags(tags))
        self._save_and_push()

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, run_id: str | None = None
    ) -> None:
        """Records metrics of a run that no ``MetricRecorder`` is recording now."""
        writer = SpoolWriter(Spool(self.spool, self._entry(run_id).key))
        writer.append(step, {clean_name(name): float(value) for name, value in metrics.items()})
        writer.close()
        self._background.submit()

    def log_datasets(self, datasets: Iterable[dict[str, str]], run_id: str | None = None) -> None:
        """Records what a run is made from, see :func:`egra_dist.tracking.datasets.dataset`."""
        with self._mirror.lock:
            self._entry(run_id).add_datasets(datasets)
        self._save_and_push()

    def copy_metrics(self, run_id: str, names: Collection[str]) -> None:
        """Gives the parent some of the metrics of a stage, with their steps and times.

        MLflow's page folds stages away below their run, so that what runs are compared by has to
        be the run's own, too.
        """
        writer = SpoolWriter(Spool(self.spool, self._entry(None).key))
        for point in Spool(self.spool, self._entry(run_id).key).points():
            if point.name in names:
                writer.append(point.step, {point.name: point.value}, point.time)
        writer.close()
        self._background.submit()

    def find(self, stage: str) -> str | None:
        """Identity of a stage's run, if it has been started."""
        entry = self._ledger.runs.get(stage)
        return entry.id if entry else None

    def series(self, run_id: str | None = None) -> dict[str, list[Value]]:
        """Every metric of a run as it was recorded in this run folder, by step."""
        return Spool(self.spool, self._entry(run_id).key).series()

    def close(self, status: str = "FINISHED", timeout: float = 30.0) -> bool:
        """Ends all runs and delivers what can be delivered in time; a second call does nothing.

        Returns:
            Whether MLflow has everything.
        """
        if self._lock.closed:
            return self._arrived
        with self._mirror.lock:
            for entry in self._ledger.runs.values():
                entry.end(status)
        self._mirror.save()
        self._arrived = self._background.finish(timeout)
        self._lock.close()
        if not self._arrived:
            logger.warning("MLflow lacks some of it; later: egra-dist track sync %s", self._folder)
        return self._arrived

    def __enter__(self) -> Self:
        exit_on_sigterm()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(status_of(error) if error else "FINISHED")

    def _begin(
        self, stage: str, name: str, params: Mapping[str, Any] | None, tags: Mapping[str, str]
    ) -> None:
        with self._mirror.lock:
            entry = self._ledger.entry(stage, name, tags.get("digest"))
            entry.begin()
            short = self._short(flatten(redacted(params or {})), entry)
            entry.add(short, _clean_tags(tags))
        self._save_and_push()

    def _short(self, params: Mapping[str, str], entry: RunEntry) -> dict[str, str]:
        """Long values go to artifacts, since stores cut them, or refuse them."""
        short = dict(params)
        for name, value in params.items():
            if len(value) > _MAX_PARAM_LENGTH:
                path = f"params/{name}.txt"
                self._mirror.outbox.put(entry.key, path, partial(_write_text, value))
                short[name] = f"{value[: _MAX_PARAM_LENGTH // 2]}... (all of it: {path})"
        return short

    def _put(self, path: str, write: Callable[[Path], object], run_id: str | None) -> None:
        self._mirror.outbox.put(self._entry(run_id).key, path.lstrip("/"), write)
        self._background.submit()

    def _entry(self, run_id: str | None) -> RunEntry:
        entry = self._ledger.find(run_id) if run_id else self._ledger.runs[_PARENT]
        assert entry is not None, f"no run of this experiment: {run_id}"
        return entry

    def _save_and_push(self) -> None:
        self._mirror.save()
        self._background.submit()


def _clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {clean_name(name): redact(str(value)) for name, value in tags.items()}


def _write_text(text: str, file: Path) -> None:
    file.write_text(text)


def _ledger_for(run_folder: Path, uri: str | None, name: str, identity: str | None) -> Ledger:
    """The ledger to go on with; one for another MLflow, or about another run, is put aside."""
    shown = without_password(uri) if uri else None
    ledger = Ledger.read(run_folder)
    if ledger and (ledger.uri, ledger.experiment) == (shown, name):
        ledger.identity = ledger.identity or identity
        if identity in (None, ledger.identity):
            return ledger
        logger.info("%s: had other settings or data before: a new run in MLflow", run_folder)
    if ledger:
        (run_folder / LEDGER).rename(run_folder / f"{LEDGER}.{now_ms()}")
    return Ledger(shown, name, identity=identity)
