"""Metrics on disk first: a file of lines, and how far it has been delivered.

    spool/<key>.jsonl       {"step": 7, "time": 1700000000000, "metrics": {"train/loss": 0.69}}
    spool/<key>.delivered   {"bytes": 12345}

A line is never changed. A point keeps the time at which it was first recorded, and MLflow's stores
hold a point (name, step, time, value) once: delivering a line again does no harm, so that each
point arrives exactly once although a process may die between a delivery and its note.
"""

import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from egra_dist.files import write_json
from egra_dist.tracking.ledger import now_ms

SUFFIX = ".jsonl"


class Point(NamedTuple):
    """One value of one metric; ``time`` in milliseconds since the epoch."""

    name: str
    value: float
    step: int
    time: int


class Value(NamedTuple):
    """One value of a metric."""

    step: int
    value: float


class Batch(NamedTuple):
    """Points of whole lines, and the bytes of the spool where those lines start and end."""

    points: list[Point]
    start: int
    end: int


class Spool:
    """The metrics of one run, in the order they were recorded.

    Args:
        folder: Where the spools of a pipeline run are.
        key: Whose metrics these are: the key of the run in the ledger, or a run id of MLflow.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key
        self.path = folder / f"{key}{SUFFIX}"
        self._note = folder / f"{key}.delivered"

    def pending(self, max_points: int) -> Batch:
        """The next points to deliver: at least one whole line, when there is one."""
        start = end = self._delivered()
        points: list[Point] = []
        with self.path.open("rb") as file:
            file.seek(start)
            for line in file:
                found = list(_points(line))
                if not line.endswith(b"\n") or (points and len(points) + len(found) > max_points):
                    break
                points += found
                end += len(line)
        return Batch(points, start, end)

    def mark_delivered(self, end: int) -> None:
        """Notes that everything before byte ``end`` has arrived."""
        write_json(self._note, {"bytes": end})

    def is_delivered(self) -> bool:
        """Whether nothing is left to deliver."""
        batch = self.pending(1)
        return batch.start == batch.end

    @contextmanager
    def delivering(self) -> Iterator[None]:
        """Keeps other processes from delivering, and waits while one does."""
        with self.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def last_steps(self) -> dict[str, int]:
        """The last step of each metric."""
        return {point.name: point.step for point in self.points()}

    def series(self) -> dict[str, list[Value]]:
        """Every metric, by step; nothing when nothing was recorded."""
        found: dict[str, list[Value]] = {}
        for point in self.points():
            found.setdefault(point.name, []).append(Value(point.step, point.value))
        return found

    def points(self) -> Iterator[Point]:
        """All points, in the order they were recorded."""
        if self.path.exists():
            with self.path.open("rb") as file:
                yield from (point for line in file for point in _points(line))

    def ends_torn(self) -> bool:
        """Whether the last line is incomplete."""
        with self.path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"

    def _delivered(self) -> int:
        try:
            return int(json.loads(self._note.read_text())["bytes"])
        except FileNotFoundError:
            return 0


class SpoolWriter:
    """Adds to a spool, made when absent; one process at a time, from any of its threads.

    Attributes:
        last_steps: The last step of each metric.
    """

    def __init__(self, spool: Spool) -> None:
        self._lock = threading.Lock()
        spool.folder.mkdir(parents=True, exist_ok=True)
        spool.path.touch()
        self.last_steps = spool.last_steps()
        self._file = spool.path.open("ab", buffering=0)
        self._torn = spool.ends_torn()  # By a process that died while writing.

    def append(self, step: int, metrics: Mapping[str, float], time: int | None = None) -> None:
        """Adds the metrics whose last step is lower; others are replays and are skipped.

        The line survives the death of the process when this returns.

        Args:
            step: Global step.
            metrics: Values by name.
            time: When they were measured, in milliseconds since the epoch; now when not given.

        Raises:
            OSError: If it cannot be written, e.g. because the disk is full.
        """
        with self._lock:
            fresh = {n: v for n, v in metrics.items() if step > self.last_steps.get(n, -1)}
            if not fresh:
                return
            line = {"step": step, "time": now_ms() if time is None else time, "metrics": fresh}
            self._write(json.dumps(line).encode() + b"\n")
            self.last_steps.update(dict.fromkeys(fresh, step))

    def close(self) -> None:
        """Closes the file; what is pending stays."""
        with self._lock:
            self._file.close()

    def _write(self, line: bytes) -> None:
        whole = b"\n" + line if self._torn else line
        self._torn = True
        if self._file.write(whole) != len(whole):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False


def _points(line: bytes) -> Iterator[Point]:
    try:
        fields = json.loads(line)
        metrics = fields["metrics"].items()
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return  # A torn line: its writer died before it had promised anything.
    for name, value in metrics:
        yield Point(name, value, fields["step"], fields["time"])
