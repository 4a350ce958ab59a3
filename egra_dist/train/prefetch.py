"""What is made ahead, in a thread of its own."""

import os
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar, cast

T = TypeVar("T")
_STEPS_BACK = 5
"""Of priority behind whoever takes: a third of the weight, so that it still goes on where other
programs want all processors."""


def prefetch(source: Iterable[T], num_ahead: int) -> Iterator[T]:
    """Yields what ``source`` yields, which runs in a background thread.

    Args:
        source: Exhausted in the thread; what it raises is raised here.
        num_ahead: At most so many results wait to be taken.
    """
    waiting: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(num_ahead)
    is_left = threading.Event()
    thread = threading.Thread(
        target=_produce, args=(source, waiting, is_left), name="prefetch", daemon=True
    )
    thread.start()
    try:
        while True:
            is_last, result = waiting.get()
            if is_last:
                if isinstance(result, BaseException):
                    raise result
                return
            yield cast("T", result)
    finally:
        is_left.set()
        thread.join()


def _produce(source: Iterable[T], waiting: queue.Queue, is_left: threading.Event) -> None:
    failure: BaseException | None = None
    _stand_back()
    try:
        for result in source:
            if not _put(waiting, (False, result), is_left):
                return
    except BaseException as error:
        failure = error
    _put(waiting, (True, failure), is_left)


def _stand_back() -> None:
    """Lets whoever takes the results go first: all ranks wait for the slowest of them."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), own + _STEPS_BACK)


def _put(waiting: queue.Queue, entry: tuple, is_left: threading.Event) -> bool:
    """Waits for room; False if nobody takes anything any more."""
    while not is_left.is_set():
        try:
            waiting.put(entry, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False
