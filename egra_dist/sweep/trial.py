"""One trial: a training in a process of its own, followed by what it commits to disk.

The process is a Ray job of its own. However it ends, Ray takes back the workers and the places that
it held, which it would not do for a training that runs inside one of Tune's actors. Its scores are
read from the state that the training commits beside its checkpoints, so that what the scheduler has
seen is never ahead of what an interrupted trial goes on from.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from egra_dist.artifact import partial_folder

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.2
_SECONDS_TO_STOP = 20.0
LOG = "log.txt"


@dataclass(frozen=True)
class TrialTask:
    """What a trial's process is told.

    Attributes:
        folder: Its run folder, with its ``config.yaml``.
        directory: The working directory: settings may have paths that are relative to it.
        catalog: Catalogue folder.
        artifacts: Where the results of stages are kept.
        tags: Tags of its run in MLflow, as pairs.
        verbosity: 0, or more to have in its log what the libraries say.
    """

    folder: str
    directory: str
    catalog: str
    artifacts: str
    tags: tuple[tuple[str, str], ...] = ()
    verbosity: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a trial stands.

    Attributes:
        epoch: Epochs trained; 0 before the first evaluation.
        score: Best validation score so far.
        status: ``running``, ``finished``, or ``failed``.
        reason: Why it failed.
    """

    epoch: int = 0
    score: float = float("-inf")
    status: Literal["running", "finished", "failed"] = "running"
    reason: str = ""


class TrialProcess:
    """Runs a trial.

    Args:
        task: What to run.
        environment: Environment of the process.
    """

    def __init__(self, task: TrialTask, environment: Mapping[str, str]) -> None:
        self._folder = Path(task.folder)
        self._log = (self._folder / LOG).open("a")
        self._last = Outcome()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "egra_dist.sweep.trial", json.dumps(asdict(task))],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=task.directory,
            start_new_session=True,  # Ctrl-C is for the search, which then stops its trials
        )

    def wait(self, seconds: float) -> Outcome:
        """How it stands when it has evaluated once more, or ended, or the time is over."""
        deadline = time.monotonic() + seconds
        outcome = self._read()
        while outcome == self._last and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            outcome = self._read()
        self._last = outcome
        return outcome

    def stop(self) -> None:
        """Lets it end in order, which takes seconds; kills it when it takes too long."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()

    def _read(self) -> Outcome:
        has_ended = self._process.poll() is not None  # before its last word is read
        epoch, score, is_finished = _read_state(self._folder) or (0, float("-inf"), False)
        if not has_ended:
            return Outcome(epoch, score)
        if is_finished and self._process.returncode == 0:
            return Outcome(epoch, score, "finished")
        return Outcome(epoch, score, "failed", _last_line(self._folder / LOG))


def _read_state(folder: Path) -> tuple[int, float, bool] | None:
    """Epoch, best score, and whether the training is finished; None before an evaluation."""
    from egra_dist.workspace import ARTIFACTS

    try:
        artifact = Path(json.loads((folder / ARTIFACTS).read_text())["train"])
        if artifact.exists():
            state = json.loads((artifact / "training.json").read_text())
            return state["epoch"], state["best_score"], True
        file = partial_folder(artifact) / "checkpoints" / "state.json"
        state = json.loads(file.read_text())["training"]
    except (FileNotFoundError, KeyError):
        return None
    return state["epoch"], state["best_score"], False


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no word in its log"


def main() -> None:
    """Runs the pipeline up to the training; ends when standard input does."""
    fields = json.loads(sys.argv[1])
    task = TrialTask(**{**fields, "tags": tuple(map(tuple, fields["tags"]))})
    threading.Thread(target=_stop_with_input, name="parent", daemon=True).start()
    from egra_dist.catalog.catalog import Catalog
    from egra_dist.config import load_config
    from egra_dist.errors import UserError
    from egra_dist.pipeline import run_pipeline
    from egra_dist.tracking.noise import setup_logging

    setup_logging(task.verbosity)
    folder = Path(task.folder)
    try:
        config, catalog = load_config(folder / "config.yaml"), Catalog.open(Path(task.catalog))
        artifacts = Path(task.artifacts)
        run_pipeline(config, catalog, folder, "train", task.verbosity, artifacts, dict(task.tags))
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")


def _stop_with_input() -> None:
    """Interrupts this process when who started it wants that, or is gone."""
    while os.read(sys.stdin.fileno(), 1):  # unbuffered: nothing that exit has to wait for
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
