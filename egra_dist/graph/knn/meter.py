"""How far a build is, in predicted core seconds, and how many it has really taken."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from egra_dist.graph.knn.tasks import OnDone


class Progress(Protocol):
    """What :class:`egra_dist.tracking.progress.StageProgress` offers."""

    def update(self, done: int, **fields: float | int | str) -> None:
        """Tells how much is done."""


class Meter:
    """Adds the stages up to one share, and what they cost.

    Args:
        total: What ``progress`` counts up to, e.g. the number of rows.
        progress: Who is told; nobody when None.
    """

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._progress = progress
        self._predicted: dict[str, float] = {}
        self._done = 0.0
        self._started = time.process_time()
        self._spent: dict[str, float] = {}
        self._elsewhere = 0.0

    def expect(self, stages: dict[str, float]) -> None:
        """Sets or corrects the predicted core seconds of stages to come."""
        self._predicted.update(stages)

    @contextmanager
    def stage(self, name: str, total: float) -> Iterator[OnDone]:
        """Yields what is to be called for every task done, whose weights add up to ``total``."""
        seconds = self._predicted.get(name, 0.0)
        before = self._done

        def on_done(weight: float, core_seconds: float = 0, here: bool = True) -> None:
            self._done += seconds * weight / total if total else 0.0
            self._spent[name] = self._spent.get(name, 0.0) + core_seconds
            self._elsewhere += 0.0 if here else core_seconds
            self._show(name)

        yield on_done
        self._done = before + seconds
        self._show(name)

    def core_seconds(self) -> dict[str, float]:
        """Processor time so far: the ``total``, the tasks of each stage, the rest by ``driver``.

        What tasks took in an earlier call, which died, is not in it.
        """
        total = time.process_time() - self._started + self._elsewhere
        driver = total - sum(self._spent.values())
        spent = {"total": total, "driver": driver, **self._spent}
        return {name: round(seconds, 3) for name, seconds in spent.items()}

    def _show(self, stage: str) -> None:
        share = self._done / max(sum(self._predicted.values()), 1e-9)
        if self._progress:
            self._progress.update(int(min(1.0, share) * self._total), part=stage)
