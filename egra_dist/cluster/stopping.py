"""What passes between the driver and its workers beside progress: SIGTERM down, warnings up."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from egra_dist.cluster.progress import ProgressBoard
from egra_dist.errors import EXIT_STOPPED

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_SECONDS_TO_HEAR = 15.0
"""Less than the 30 that Kubernetes, and the 60 that ``egra-dist submit`` leaves."""


@contextmanager
def stopped_by_sigterm(board: ProgressBoard) -> Iterator[None]:
    """Hands SIGTERM on to who reads the board, and ends the process in order when they are done.

    The block goes on until its workers have saved what they have. It ends at once if nobody hears
    (no worker is running, or all are in a long evaluation), or after a second SIGTERM. Warnings of
    the workers are logged meanwhile.

    Raises:
        SystemExit: After the block, if SIGTERM came; with :data:`EXIT_STOPPED`.
    """
    told, ended = threading.Event(), threading.Event()
    thread = threading.Thread(target=_relay, args=(board, told, ended), name="relay", daemon=True)
    thread.start()
    try:
        with _sigterm_sets(told):
            yield
    finally:
        ended.set()
        thread.join()
    if told.is_set():
        raise SystemExit(EXIT_STOPPED)


@contextmanager
def _sigterm_sets(told: threading.Event) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may listen
        return

    def tell(number: int, frame: FrameType | None) -> None:
        if told.is_set():
            raise SystemExit(EXIT_STOPPED)
        told.set()

    earlier = signal.signal(signal.SIGTERM, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _relay(board: ProgressBoard, told: threading.Event, ended: threading.Event) -> None:
    import ray

    waits_until: float | None = None
    while True:
        is_last = ended.wait(_POLL_SECONDS)
        try:
            for message in board.take_warnings():
                _log.warning("%s", message)
            if told.is_set() and waits_until is None:
                _log.info("told to stop: saving first")
                board.stop()
                waits_until = time.monotonic() + _SECONDS_TO_HEAR
            if waits_until and time.monotonic() > waits_until and not is_last:
                waits_until = float("inf")
                if not board.is_heard():
                    os.kill(os.getpid(), signal.SIGTERM)  # in the main thread, as a second one
        except ray.exceptions.GetTimeoutError as error:
            _log.debug("No answer: %s", error)
        except ray.exceptions.RayError as error:
            _log.debug("No answer any more: %s", error)
            return
        if is_last:
            return
