"""How far a build is: predicted core seconds done, of all that are predicted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """What :class:`egra_dist.tracking.progress.StageProgress` offers."""

    def update(self, done: int, **fields: float | int | str) -> None:
        """Tells how much is done."""


class Meter:
    """Adds the stages up to one share.

    Args:
        total: What ``progress`` counts up to, e.g. the number of rows.
        progress: Who is told; nobody when None.
    """

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._progress = progress
        self._predicted: dict[str, float] = {}
        self._done = 0.0

    def expect(self, stages: dict[str, float]) -> None:
        """Sets or corrects the predicted core seconds of stages to come."""
        self._predicted.update(stages)

    @contextmanager
    def stage(self, name: str, weight: float) -> Iterator[Callable[[float], None]]:
        """Yields what is to be called with the weight of every task done."""
        seconds = self._predicted.get(name, 0.0)
        before = self._done

        def on_done(part: float) -> None:
            self._done += seconds * part / weight if weight else 0.0
            self._show(name)

        yield on_done
        self._done = before + seconds
        self._show(name)

    def _show(self, stage: str) -> None:
        share = self._done / max(sum(self._predicted.values()), 1e-9)
        if self._progress:
            self._progress.update(int(min(1.0, share) * self._total), part=stage)
