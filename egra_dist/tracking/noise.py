"""Keeps the libraries quiet, so that what the pipeline says can be read.

Two means, since some chatter is decided by the environment a process starts with and some by
Python's logging: :func:`quiet_environment` before Ray, torch and MLflow are imported (and handed to
the workers), :func:`setup_logging` once in every process, as the first thing.
"""

import logging
import os
import sys
import warnings
from collections.abc import Mapping

from egra_dist.redaction import redact
from egra_dist.tracking.progress import CLEAR_LINE, is_terminal

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",  # Our lines are few; Ray's "repeated 2x" rewriting only hides some.
    "RAY_LOGGER_LEVEL": "error",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TORCH_LOGS": "-all",  # torch sets its loggers' levels on import: only this reaches them.
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    # Tracking is never waited for: with MLflow's own values a dead server blocks for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning,ignore::UserWarning",
}
_QUIET_ON_ONE_MACHINE = {
    # Nothing is preempted here, and the watcher logs an error for each training.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
_LOUD_WHEN_VERBOSE = {
    "RAY_LOGGER_LEVEL",
    "TORCH_LOGS",
    "TORCH_CPP_LOG_LEVEL",
    "MLFLOW_LOGGING_LEVEL",
    "PYTHONWARNINGS",
}
_LIBRARIES = ("ray", "ray.train", "ray.data", "mlflow", "alembic", "torchrec", "fbgemm_gpu")


def quiet_environment(
    local: bool = True,
    verbose: int = 0,
    environment: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """Variables for this process and the Ray workers; what the user has set stays.

    Args:
        local: Whether Ray runs on this machine only. On a cluster authentication and preemption
            are left as they are.
        verbose: From 1 on, libraries are not silenced.
        environment: What is set already.

    Returns:
        Name to value, to be put in ``os.environ`` and in the workers' runtime environment.
    """
    wanted = {**_QUIET, **(_QUIET_ON_ONE_MACHINE if local else {})}
    if verbose:
        wanted = {name: value for name, value in wanted.items() if name not in _LOUD_WHEN_VERBOSE}
    return {name: environment.get(name, value) for name, value in wanted.items()}


def setup_logging(verbose: int = 0) -> None:
    """Sends our log lines to standard error, short, and the libraries' only when asked.

    Call it in the driver and, before torchrec is imported, in each worker. Handlers that write
    elsewhere (Ray Train's log files) stay.

    Args:
        verbose: 0: our INFO, libraries' errors. 1: also libraries' INFO. 2: also our DEBUG.
    """
    root = logging.getLogger()
    for handler in [h for h in root.handlers if _writes_to_console(h)]:
        root.removeHandler(handler)
    root.addHandler(_console(verbose))
    libraries = logging.INFO if verbose else logging.ERROR
    root.setLevel(libraries)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(libraries)
    logging.getLogger("egra_dist").setLevel(logging.DEBUG if verbose > 1 else logging.INFO)
    if not verbose:
        for category in (FutureWarning, DeprecationWarning, UserWarning):
            warnings.filterwarnings("ignore", category=category)


class _ConsoleHandler(logging.StreamHandler):
    """Writes to what is standard error at the time, without tearing a live progress line."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        if is_terminal(self.stream):
            self.stream.write(CLEAR_LINE)
        super().emit(record)


def _console(verbose: int) -> logging.Handler:
    handler = _ConsoleHandler()
    where = " %(name)s" if verbose else ""
    handler.setFormatter(_LevelOnlyWhenBad(f"%(asctime)s{where} %(message)s", datefmt="%H:%M:%S"))
    return handler


class _LevelOnlyWhenBad(logging.Formatter):
    """INFO lines are the normal case and need no label."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's own name)
        if record.levelno >= logging.WARNING:
            record.message = f"{record.levelname.lower()}: {record.message}"
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """The whole entry, tracebacks included, without passwords and tokens."""
        return redact(super().format(record))


def _writes_to_console(handler: logging.Handler) -> bool:
    console = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return isinstance(handler, logging.StreamHandler) and (
        isinstance(handler, _ConsoleHandler) or handler.stream in console
    )
