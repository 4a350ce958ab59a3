"""What all ranks do together after a step, though only one of them was told or knows the time."""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
import torch.distributed as dist

_SECONDS_BETWEEN = 1.0
_MAX_STEPS_BETWEEN = 1000


class Ending(IntEnum):
    """Why a training ends before it is finished; of two reasons the higher counts."""

    NONE = 0
    PREEMPTED = 1
    """A worker is about to be taken away: save, and start again with what remains."""
    STOPPED = 2
    """The run was told to stop: save, and leave."""


@dataclass(frozen=True)
class Verdict:
    """What follows a step.

    Attributes:
        saves: Whether a checkpoint is due.
        ending: Whether, and why, the training ends here.
    """

    saves: bool = False
    ending: Ending = Ending.NONE


class Agreement:
    """Asks all ranks about once a second, however long a step takes.

    Args:
        told: What this rank was told.
        is_due: Whether this rank's clock wants a checkpoint; rank 0's counts.
        checkpoint_steps: Steps between two checkpoints, beside those.
    """

    def __init__(
        self,
        told: Callable[[], Ending] = lambda: Ending.NONE,
        is_due: Callable[[], bool] = lambda: False,
        checkpoint_steps: int | None = None,
    ) -> None:
        self._told = told
        self._is_due = is_due
        self._checkpoint_steps = checkpoint_steps
        self._group = dist.new_group(backend="gloo")
        self._last = time.monotonic()
        self._steps, self._steps_between = 0, 1

    def after(self, step: int) -> Verdict:
        """What follows a step; a collective call.

        Args:
            step: Steps done.
        """
        saves = bool(self._checkpoint_steps) and step % (self._checkpoint_steps or 1) == 0
        self._steps += 1
        if self._steps < self._steps_between:
            return Verdict(saves)
        is_due = dist.get_rank() == 0 and self._is_due()
        words = torch.tensor([self._told(), is_due, -self._affordable_steps()])
        dist.all_reduce(words, dist.ReduceOp.MAX, group=self._group)
        ending, due, steps = words.tolist()
        self._last = time.monotonic()
        self._steps, self._steps_between = 0, -steps
        return Verdict(saves or bool(due), Ending(ending))

    def _affordable_steps(self) -> int:
        """Steps until all ranks are asked again, by how long the last ones took."""
        seconds = (time.monotonic() - self._last) / self._steps
        return max(1, min(_MAX_STEPS_BETWEEN, int(_SECONDS_BETWEEN / max(seconds, 1e-6))))


class SigtermListener:
    """Remembers that this process was sent SIGTERM. One per process, in :data:`SIGTERM`."""

    def __init__(self) -> None:
        self._received = threading.Event()

    def listen(self) -> None:
        """Starts to listen; only in the main thread, which a training does not run in."""
        self._received.clear()
        signal.signal(signal.SIGTERM, lambda number, frame: self._received.set())

    def is_received(self) -> bool:
        """Whether it came."""
        return self._received.is_set()


SIGTERM = SigtermListener()
