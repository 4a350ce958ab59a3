"""Runs a worker function on a Ray Train v2 worker group and follows it.

What ends a group, and what then happens:

* a worker or a node dies, or a worker is stuck: the group is started again, at most
  ``cluster.max_failures`` times, and the training goes on from its last checkpoint;
* a worker finds the user's input wrong: nothing is tried again;
* the driver is sent SIGTERM: the workers save and leave, then the driver does.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from egra_dist.cluster.progress import ProgressBoard, follow
from egra_dist.cluster.resources import worker_resources
from egra_dist.cluster.stopping import stopped_by_sigterm
from egra_dist.config import ClusterSettings
from egra_dist.errors import UserError
from egra_dist.tracking.progress import StageProgress
from egra_dist.train.task import Task

_log = logging.getLogger(__name__)
_WITHOUT_END = 1_000_000


def launch(worker: Callable[[dict[str, Any]], None], task: Task, cluster: ClusterSettings) -> None:
    """Runs ``worker`` on every rank of a new group, in an initialised Ray session.

    A group that fails is started again; the training goes on from its last checkpoint.

    Raises:
        UserError: If a worker found the user's input wrong.
        RuntimeError: If the group failed more often than ``cluster.max_failures``.
        SystemExit: If SIGTERM came; what the workers had is saved.
    """
    board = ProgressBoard()
    with StageProgress(task.stage) as line, stopped_by_sigterm(board), follow(board, line):
        attempts = cluster.max_failures if cluster.max_failures >= 0 else _WITHOUT_END
        for attempt in range(attempts + 1):
            try:
                _fit(_trainer(worker, replace(task, progress=board), cluster))
                return
            except GroupNotStartedError as error:
                if attempt == attempts:
                    raise
                _log.warning("%s; trying again", error)


class GroupNotStartedError(RuntimeError):
    """A worker was lost while the group came up; Ray Train itself does not try that again."""


def _trainer(worker: Callable[[dict[str, Any]], None], task: Task, cluster: ClusterSettings) -> Any:
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig

    from egra_dist.train.group import ListeningTorchConfig, NoSecondTry, Trainer

    has_gpu = cluster.gpus_per_worker > 0
    least, most = cluster.min_workers or cluster.num_workers, cluster.num_workers
    return Trainer(
        worker,
        train_loop_config={"task": task},
        torch_config=ListeningTorchConfig(backend="nccl" if has_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=most if least == most else (least, most),
            use_gpu=has_gpu,
            resources_per_worker=worker_resources(cluster).as_ray(),
        ),
        run_config=RunConfig(
            name=f"{task.stage}-{time.time_ns()}",
            storage_path=str(_ray_folder(task.folder)),
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            logging_config=LoggingConfig("INFO" if task.verbosity else "ERROR"),
            callbacks=[NoSecondTry()],
        ),
    )


def _ray_folder(folder: Path) -> Path:
    """Where Ray keeps its own notes on the run; ours are the checkpoints."""
    path = folder.parent / ".ray"
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def _fit(trainer: Any) -> None:
    from ray.train import ControllerError, TrainingFailedError, WorkerGroupError

    try:
        with _interrupts_restored():
            trainer.fit()
    except WorkerGroupError as error:
        for rank, failure in sorted(error.worker_failures.items()):
            if isinstance(failure, UserError):
                raise failure from None
            raise RuntimeError(f"worker {rank} failed: {failure}") from failure
        raise
    except ControllerError as error:
        if isinstance(error.controller_failure, UserError):
            raise error.controller_failure from None
        raise GroupNotStartedError(f"training failed: {error}") from error
    except TrainingFailedError as error:
        raise RuntimeError(f"training failed: {error}") from error


@contextmanager
def _interrupts_restored() -> Iterator[None]:
    """Takes Train's answer to Ctrl-C back when it is done; it would end the process as if well."""
    is_main = threading.current_thread() is threading.main_thread()
    earlier = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if error.code == 0:
            raise KeyboardInterrupt from None
        raise
    finally:
        if is_main:
            signal.signal(signal.SIGINT, earlier)
