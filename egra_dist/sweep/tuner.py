"""The search with Ray Tune: which trials run now, and which are stopped early."""

import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import ray
import ray._private.worker
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.tune_config import TuneConfig

from egra_dist.sweep.record import SweepRecord, TrialRecord
from egra_dist.sweep.space import SchedulerSettings
from egra_dist.sweep.trial import TrialProcess, TrialTask

_log = logging.getLogger(__name__)
_REPORT_SECONDS = 2.0  # a trial that is to be stopped hears of it between two reports
_NOT_FOR_TRIALS = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")  # Ray set them for Tune's actor


class _Trial(tune.Trainable):
    """Tune's side of a trial; the work is done in a process."""

    def setup(
        self,
        config: dict[str, Any],
        tasks: Mapping[int, TrialTask] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        inherited = {n: value for n, value in os.environ.items() if n not in _NOT_FOR_TRIALS}
        task = (tasks or {})[config["number"]]
        self._process = TrialProcess(task, {**inherited, **(environment or {})})

    def step(self) -> dict[str, Any]:
        outcome = self._process.wait(_REPORT_SECONDS)
        return {**vars(outcome), "done": outcome.status != "running"}

    def cleanup(self) -> None:
        self._process.stop()


class _Recorder(tune.Callback):
    """Notes in the record what Tune hears and decides."""

    def __init__(self, trials: Sequence[TrialRecord], changed: Callable[[], None]) -> None:
        self._trials = {trial.number: trial for trial in trials}
        self._changed = changed

    def __getstate__(self) -> dict[str, Any]:
        """Tune writes its callbacks down, to go on with; we do not go on with what it wrote."""
        return {}

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._trials[trial.config["number"]].status = "running"
        self._changed()

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict, **info: Any
    ) -> None:
        record = self._trials[trial.config["number"]]
        before = record.epoch, record.status
        if result["epoch"]:
            record.report(result["epoch"], result["score"])
        if result["done"]:  # it has ended, or the scheduler ends it
            is_running = result["status"] == "running"
            record.status = "stopped" if is_running else result["status"]
            record.reason = result["reason"]
        if before != (record.epoch, record.status):
            self._changed()

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        record = self._trials[trial.config["number"]]
        record.status, record.reason = "failed", "its process was lost"
        self._changed()


def search(
    record: SweepRecord,
    tasks: Mapping[int, TrialTask],
    environment: Mapping[str, str],
    scheduler: SchedulerSettings,
    max_epochs: int,
    max_concurrent: int,
    changed: Callable[[], None],
    verbosity: int = 0,
) -> None:
    """Runs what remains of a search, in an initialised Ray session.

    Args:
        record: The trials; kept up to date.
        tasks: What each remaining trial runs, by its number.
        environment: Variables of all trials' processes.
        scheduler: When a trial is stopped early.
        max_epochs: The most epochs that any trial trains.
        max_concurrent: Trials at the same time.
        changed: Called whenever the record has changed.
        verbosity: 0, or more to see what the libraries say.
    """
    if not verbosity:  # Ray warns of many processes, which a search starts on purpose
        ray._private.worker._worker_logs_enabled = False
    context = ray.get_runtime_context()
    environment = {**environment, "RAY_ADDRESS": context.gcs_address}
    if "OMP_NUM_THREADS" in os.environ:
        environment["OMP_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]
    here = next(n for n in ray.nodes() if n["NodeID"] == context.get_node_id())
    trainable = tune.with_resources(
        tune.with_parameters(_Trial, tasks=dict(tasks), environment=environment),
        tune.PlacementGroupFactory([{f"node:{here['NodeManagerAddress']}": 0.001}]),
    )
    settings = TuneConfig(
        scheduler=_scheduler(scheduler, max_epochs, record), max_concurrent_trials=max_concurrent
    )
    numbers = {"number": tune.grid_search(list(tasks))}
    with tempfile.TemporaryDirectory(prefix="egra-tune-") as folder:
        run_config = _run_config(folder, _Recorder(record.trials, changed))
        tune.Tuner(
            trainable, param_space=numbers, tune_config=settings, run_config=run_config
        ).fit()


def _run_config(folder: str, recorder: _Recorder) -> tune.RunConfig:
    """Quiet; what Tune itself writes down is thrown away, since our record is what counts."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_SYNCER"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the old one is silent when told to be
    return tune.RunConfig(
        storage_path=folder,
        callbacks=[recorder],
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        verbose=0,
    )


def _scheduler(settings: SchedulerSettings, max_epochs: int, record: SweepRecord) -> TrialScheduler:
    """The scheduler, told of the trials that are over: it compares new ones with them."""
    if settings.name == "none":
        return FIFOScheduler()
    scheduler = ASHAScheduler(
        time_attr="epoch",
        metric="score",
        mode="max",
        max_t=max(max_epochs, settings.grace_epochs),
        grace_period=settings.grace_epochs,
        reduction_factor=settings.reduction_factor,
        stop_last_trials=False,  # who has trained for all epochs still writes its vectors
    )
    for trial in record.trials:
        if trial.is_over:
            known = SimpleNamespace(trial_id=f"earlier-{trial.number}")
            scheduler.on_trial_add(None, known)
            for epoch, score in trial.history:
                result = {"epoch": epoch, "score": score}
                scheduler.on_trial_result(None, known, result)
    return scheduler
