"""Many independent tasks, each of which leaves one array in a folder.

A task whose array is there is not run again: what a killed worker, node or driver costs is the
task it was in. Tasks read their input from memory-mapped files of the same folder (on a cluster:
one that all nodes share), so that nothing is copied to them. The split into tasks, and hence the
result, does not depend on how many workers run them; every task is single-threaded.
"""

import ctypes
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_WINDOW_PER_THREAD = 2
FEWEST_TASKS = 16
"""Tasks into which a stage is split at least, so that some workers do not wait long for others."""
MOST_TASKS = 1024
"""Tasks into which a stage is split at most: every task of some looks into what every one of the
stage before has left."""
_FEWEST_ROWS = 4096


class Task(Protocol):
    """A picklable description of one piece of work (a frozen dataclass)."""

    @property
    def weight(self) -> float:
        """Predicted cost, in any unit: the heaviest tasks start first."""

    def run(self, folder: Path) -> NDArray:
        """Does the work on the files of ``folder``."""


class OnDone(Protocol):
    """Who is told of tasks that are done."""

    def __call__(self, weight: float, core_seconds: float = 0, here: bool = True) -> None:
        """Takes the weight, and the processor time that it took in this process or elsewhere."""


Call = tuple[Task, Path, Path, int]
"""A task, its folder, the file for its array, and its number."""


@dataclass(frozen=True)
class Done:
    """A task that is done.

    Attributes:
        number: Which one.
        core_seconds: Processor time of its thread.
        process: Where it ran.
    """

    number: int
    core_seconds: float
    process: int


@dataclass(frozen=True)
class RowsTask:
    """A task on a range of rows, whose cost is their number.

    Attributes:
        first: First row.
        last: Row after the last.
    """

    first: int
    last: int

    @property
    def weight(self) -> float:
        """Rows."""
        return self.last - self.first


def row_ranges(num_rows: int, most: int) -> list[tuple[int, int]]:
    """Splits rows into tasks.

    Args:
        num_rows: How many there are.
        most: Rows per task at most; fewer where that gives less than ``FEWEST_TASKS`` tasks, more
            where it gives over ``MOST_TASKS``.

    Returns:
        First row and row after the last of each task that together have all rows.
    """
    rows_per_task = min(most, max(_FEWEST_ROWS, math.ceil(num_rows / FEWEST_TASKS)))
    rows_per_task = max(rows_per_task, math.ceil(num_rows / MOST_TASKS))
    starts = range(0, num_rows, rows_per_task)
    return [(first, min(num_rows, first + rows_per_task)) for first in starts]


@dataclass(frozen=True)
class Workers:
    """Who runs tasks.

    Attributes:
        num_threads: Threads of this process, when Ray is not used.
        ray: Whether tasks run as Ray tasks, of one CPU or one GPU each.
        device: ``cpu``, or where torch finds the GPU that tasks run on.
    """

    num_threads: int = 1
    ray: bool = False
    device: str = "cpu"


def run_tasks(
    stage: str,
    tasks: Sequence[Task],
    folder: Path,
    workers: Workers,
    on_done: OnDone | None = None,
) -> list[Path]:
    """Runs the tasks that have not been run.

    Args:
        stage: Names the subfolder of ``folder`` that holds the arrays.
        tasks: What to do.
        folder: Where the input and the results are.
        workers: Who does it.
        on_done: Is told of every task that is done, or was.

    Returns:
        The ``.npy`` file of each task.
    """
    results = folder / stage
    results.mkdir(exist_ok=True)
    paths = [results / f"{number:06d}.npy" for number in range(len(tasks))]
    existed = [path.exists() for path in paths]
    if sum(existed):
        logger.info("%s: %d of %d tasks were done before", stage, sum(existed), len(tasks))
    waiting = [number for number in range(len(tasks)) if not existed[number]]
    if on_done:
        on_done(sum(task.weight for task, was in zip(tasks, existed, strict=True) if was))
    calls = [(tasks[number], folder, paths[number], number) for number in waiting]
    for done in _run(calls, workers):
        if on_done:
            on_done(tasks[done.number].weight, done.core_seconds, done.process == os.getpid())
    return paths


def _run(calls: Sequence[Call], workers: Workers) -> Iterator[Done]:
    if workers.ray:
        from egra_dist.graph.knn.nodes import run_on_nodes

        return run_on_nodes(calls, [call[0].weight for call in calls], workers.device)
    heaviest_first = sorted(calls, key=lambda call: -call[0].weight)
    return _run_in_threads(heaviest_first, workers.num_threads if workers.device == "cpu" else 1)


def run_one(task: Task, folder: Path, path: Path, number: int) -> Done:
    """Runs a task unless its array is there."""
    started = time.thread_time()
    if not path.exists():
        array = task.run(folder)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, array)
        partial.replace(path)
        del array
        _return_freed_memory()
    return Done(number, time.thread_time() - started, os.getpid())


def _return_freed_memory() -> None:
    """Gives freed memory back to the system, where the C library would keep most of it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def _run_in_threads(calls: Sequence[Call], num_threads: int) -> Iterator[Done]:
    with single_threaded():
        if num_threads == 1:
            for call in calls:
                yield run_one(*call)
            return
        queue = iter(calls)
        with ThreadPoolExecutor(num_threads) as pool:
            window = _WINDOW_PER_THREAD * num_threads
            running: set[Future[Done]] = {pool.submit(run_one, *c) for c in islice(queue, window)}
            while running:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(run_one, *c) for c in islice(queue, len(finished))}
                for future in finished:
                    yield future.result()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Numbers that do not depend on how many threads a matrix product is split over."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
