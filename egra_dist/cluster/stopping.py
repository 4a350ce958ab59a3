"""What passes between the driver and its workers beside progress: SIGTERM down, warnings up."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from egra_dist.cluster.progress import ProgressBoard
from egra_dist.errors import EXIT_STOPPED

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.5


@contextmanager
def stopped_by_sigterm(board: ProgressBoard) -> Iterator[None]:
    """Hands SIGTERM on to who reads the board, and ends the process in order when they are done.

    The block goes on until its workers have saved what they have. A second SIGTERM ends it at
    once. Warnings of the workers are logged meanwhile.

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
    is_told = False
    while True:
        is_last = ended.wait(_POLL_SECONDS)
        if told.is_set() and not is_told:
            is_told = True
            _log.info("told to stop: saving first")
            board.stop()
        if not _log_warnings(board) or is_last:
            return


def _log_warnings(board: ProgressBoard) -> bool:
    import ray

    try:
        for message in board.take_warnings():
            _log.warning("%s", message)
    except ray.exceptions.GetTimeoutError:
        return True
    except ray.exceptions.RayError as error:
        _log.debug("No warnings: %s", error)
        return False
    return True
