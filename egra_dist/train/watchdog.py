"""Notices that a worker is stuck, tells where, and ends it, so that it is started again."""

import faulthandler
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

EXIT_STUCK = 70
_GRACE_SECONDS = 5.0  # all ranks wait for the stuck one: each has time to tell where


class Watchdog:
    """A thread that ends this process when no step was done for too long. Use as a context manager.

    The stacks of all threads are written to ``stuck-rank-R.txt``. A process whose interpreter is
    held up, too, is ended by faulthandler's own thread, which needs none.

    Args:
        rank: Which worker this is.
        folder: Where the stacks go.
        seconds: How long no step may be done.
        warn: Tells the user.
    """

    def __init__(
        self, rank: int, folder: Path, seconds: float, warn: Callable[[str], object]
    ) -> None:
        self._rank = rank
        self._path = folder / f"stuck-rank-{rank}.txt"
        self._seconds = seconds
        self._warn = warn
        self._step = 0
        self._last = time.monotonic()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self, step: int) -> None:
        """Tells that the work goes on."""
        self._step, self._last = step, time.monotonic()

    def __enter__(self) -> Self:
        self.beat(0)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a")  # what an earlier one wrote stays
        self._arm()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._thread.join()
        self._file.close()
        if self._path.stat().st_size == 0:
            self._path.unlink()

    def _watch(self) -> None:
        try:
            while not self._closing.wait(min(1.0, self._seconds / 4)):
                self._arm()
                if time.monotonic() - self._last > self._seconds:
                    self._end()
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _arm(self) -> None:
        """Has faulthandler do the same somewhat later, should this thread not be able to run."""
        limit = self._seconds + 2 * _GRACE_SECONDS
        faulthandler.dump_traceback_later(limit, exit=True, file=self._file)

    def _end(self) -> None:
        where = f"worker {self._rank}: no step for {self._seconds:g} s after step {self._step}"
        self._file.write(f"{where}\n")
        self._file.flush()
        faulthandler.dump_traceback(self._file)
        self._warn(f"{where}; it is started again; where it stood: {self._path}")
        if not self._closing.wait(_GRACE_SECONDS):
            os._exit(EXIT_STUCK)
