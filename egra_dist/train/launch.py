"""Runs a worker function on a Ray Train v2 worker group and follows it."""

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
from egra_dist.config import ClusterSettings
from egra_dist.errors import UserError
from egra_dist.tracking.progress import StageProgress
from egra_dist.train.task import Task

_log = logging.getLogger(__name__)


def launch(worker: Callable[[dict[str, Any]], None], task: Task, cluster: ClusterSettings) -> None:
    """Runs ``worker`` on every rank of a new group, in an initialised Ray session.

    A group that fails is started again; the training goes on from its last checkpoint.

    Raises:
        UserError: If a worker found the user's input wrong.
        RuntimeError: If the group failed more often than ``cluster.max_failures``.
    """
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    has_gpu = cluster.gpus_per_worker > 0
    board = ProgressBoard()
    trainer = TorchTrainer(
        worker,
        train_loop_config={"task": replace(task, progress=board)},
        torch_config=TorchConfig(backend="nccl" if has_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=cluster.num_workers,
            use_gpu=has_gpu,
            resources_per_worker=worker_resources(cluster).as_ray(),
        ),
        run_config=RunConfig(
            name=f"{task.stage}-{time.time_ns()}",
            storage_path=str(_ray_folder(task.folder)),
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            logging_config=LoggingConfig("INFO" if task.verbosity else "ERROR"),
        ),
    )
    with StageProgress(task.stage) as line, follow(board, line):
        _fit(trainer)


def _ray_folder(folder: Path) -> Path:
    """Where Ray keeps its own notes on the run; ours are the checkpoints."""
    path = folder.parent / ".ray"
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def _fit(trainer: Any) -> None:
    from ray.train import TrainingFailedError, WorkerGroupError

    try:
        with _interrupts_restored():
            trainer.fit()
    except WorkerGroupError as error:
        for rank, failure in sorted(error.worker_failures.items()):
            if isinstance(failure, UserError):
                raise failure from None
            raise RuntimeError(f"worker {rank} failed: {failure}") from failure
        raise
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
