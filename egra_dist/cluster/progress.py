"""Progress of work that runs on the cluster, shown where the user sits.

A tiny actor holds the latest word. Rank 0 of the workers (or each task) tells it without waiting;
the driver asks it twice a second and feeds its progress line. The other way it carries the word to
stop (:mod:`egra_dist.cluster.stopping`), and what the user should be warned of.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from egra_dist.tracking.progress import StageProgress

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_REPLY_SECONDS = 10.0


@dataclass(frozen=True)
class Progress:
    """How far the work is: ``done`` of ``total`` units, and values to show beside it."""

    done: int
    total: int | None = None
    fields: dict[str, float | int | str] = field(default_factory=dict)


class _Board:
    """The actor: remembers the latest progress, warnings, and whether to stop."""

    def __init__(self) -> None:
        self._latest: Progress | None = None
        self._warnings: list[str] = []
        self._stopped = False
        self._heard = False

    def update(self, progress: Progress) -> None:
        self._latest = progress

    def latest(self) -> Progress | None:
        return self._latest

    def warn(self, message: str) -> None:
        self._warnings.append(message)

    def take_warnings(self) -> list[str]:
        taken, self._warnings = self._warnings, []
        return taken

    def stop(self) -> None:
        self._stopped = True

    def is_stopped(self) -> bool:
        self._heard = self._stopped
        return self._stopped

    def is_heard(self) -> bool:
        return self._heard


class ProgressBoard:
    """Handle of the actor; travels to workers and tasks like any other argument.

    Make it in a Ray session. It takes no CPU, and ends with the last handle.
    """

    def __init__(self) -> None:
        import ray

        self._actor: Any = ray.remote(num_cpus=0)(_Board).remote()
        self._sent = 0.0
        self._answer: Any = None

    def update(self, done: int, total: int | None = None, **fields: float | int | str) -> None:
        """Tells the driver, without waiting for an answer.

        What comes sooner after the last word than the driver asks is not sent, unless the work
        is done.
        """
        now = time.monotonic()
        if now - self._sent >= _POLL_SECONDS or done == total:
            self._sent = now
            self._actor.update.remote(Progress(done, total, fields))

    def latest(self) -> Progress | None:
        """The last word, None before the first."""
        import ray

        return ray.get(self._actor.latest.remote(), timeout=_REPLY_SECONDS)

    def warn(self, message: str) -> None:
        """Has the driver warn the user; not waiting for an answer."""
        self._actor.warn.remote(message)

    def take_warnings(self) -> list[str]:
        """What the user has not been warned of yet."""
        import ray

        return ray.get(self._actor.take_warnings.remote(), timeout=_REPLY_SECONDS)

    def stop(self) -> None:
        """Tells whoever asks to stop, once what is begun is saved."""
        self._actor.stop.remote()

    def is_heard(self) -> bool:
        """Whether somebody has asked since :meth:`stop`."""
        import ray

        return ray.get(self._actor.is_heard.remote(), timeout=_REPLY_SECONDS)

    def is_stopped(self) -> bool:
        """Whether to stop, by the last answer that came; asks again without waiting for it."""
        import ray

        if self._answer is None:
            self._answer = self._actor.is_stopped.remote()
        if not ray.wait([self._answer], timeout=0)[0]:
            return False
        answer, self._answer = self._answer, None
        try:
            return bool(ray.get(answer))
        except ray.exceptions.RayError as error:
            _log.debug("No answer: %s", error)
            return False


@contextmanager
def follow(board: ProgressBoard, stage: StageProgress) -> Iterator[None]:
    """Feeds ``stage`` from ``board`` while the block runs, and once more at its end."""
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(_POLL_SECONDS) and _show_latest(board, stage):
            pass

    thread = threading.Thread(target=poll, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _show_latest(board, stage)


def _show_latest(board: ProgressBoard, stage: StageProgress) -> bool:
    """Shows the last word; False when there will be no more: progress never stops the work."""
    import ray

    try:
        progress = board.latest()
    except ray.exceptions.RayError as error:
        _log.debug("No progress: %s", error)
        return isinstance(error, ray.exceptions.GetTimeoutError)
    if progress:
        stage.total = progress.total if progress.total is not None else stage.total
        stage.update(progress.done, **progress.fields)
    return True
