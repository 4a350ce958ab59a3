"""One line per stage: live on a terminal, one log line per interval elsewhere."""

import logging
import os
import shutil
import sys
import time
from collections import deque
from types import TracebackType
from typing import Self, TextIO

logger = logging.getLogger(__name__)

CLEAR_LINE = "\r\x1b[2K"
_REDRAW_SECONDS = 0.1
_RATE_SAMPLE_SECONDS = 1.0
_NUM_RATE_SAMPLES = 30
_PER_SECOND = "_per_second"


class StageProgress:
    """Shows how far a stage is, how fast it goes and when it will end.

    On a terminal one line is redrawn in place. Elsewhere (a file, a job's log) one line is logged
    per interval. Either way :meth:`close` leaves one line that sums the stage up.

    Args:
        stage: Name of the stage, e.g. ``"train"``.
        total: How much there is to do, in ``unit``; None when not known.
        unit: What is counted.
        interval_seconds: Least time between two log lines when not on a terminal.
        stream: Where the live line is drawn; standard error by default.
    """

    def __init__(
        self,
        stage: str,
        total: int | None = None,
        unit: str = "steps",
        interval_seconds: float = 10.0,
        stream: TextIO | None = None,
    ) -> None:
        self.stage = stage
        self.total = total
        self.unit = unit
        self._stream = stream or sys.stderr
        self._live = is_terminal(self._stream)
        self._interval = _REDRAW_SECONDS if self._live else interval_seconds
        self._done = 0
        self._fields: dict[str, float | int | str] = {}
        self._started = self._shown = time.monotonic()
        self._samples: deque[tuple[float, int]] = deque(maxlen=_NUM_RATE_SAMPLES)
        self._closed = False
        if self._live:
            self._show(["starting"])

    def update(self, done: int, **fields: float | int | str) -> None:
        """Notes what is done so far, and shows it if the last time is long enough ago.

        Args:
            done: How much is done, in ``unit``.
            **fields: Further values to show. They stay until given anew. A name that ends in
                ``_per_second`` is shown as a rate and takes the place of the stage's own.
        """
        now = time.monotonic()
        self._done = done
        self._fields.update(fields)
        if not self._samples or now - self._samples[-1][0] >= _RATE_SAMPLE_SECONDS:
            self._samples.append((now, done))
        if now - self._shown >= self._interval:
            self._shown = now
            self._show(self._parts(now))

    def close(self, summary: str = "") -> None:
        """Leaves one last line; later calls do nothing.

        Args:
            summary: What came out, e.g. ``"recall_at_20 0.1031"``; the last fields when empty.
        """
        self._finish("done", summary)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._finish("done" if kind is None else "stopped", "")

    def _finish(self, verb: str, summary: str) -> None:
        if self._closed:
            return
        self._closed = True
        seconds = time.monotonic() - self._started
        amount = f", {self._done:,} {self.unit}" if self._done else ""
        parts = [f"{verb} in {format_duration(seconds)}{amount}"]
        parts += [summary] if summary else self._shown_fields()
        line = _join(self.stage, parts)
        if self._live:
            self._stream.write(f"{CLEAR_LINE}{line}\n")
            self._stream.flush()
        else:
            logger.info(line)

    def _show(self, parts: list[str]) -> None:
        if not self._live:
            logger.info(_join(self.stage, parts))
            return
        width = _terminal_width(self._stream) - 1
        line = _join(self.stage, parts)
        if len(line) > width:
            line = " ".join([self.stage, *parts])
        self._stream.write(f"{CLEAR_LINE}{line[:width]}")
        self._stream.flush()

    def _parts(self, now: float) -> list[str]:
        """What a line says, the first things first: a narrow terminal cuts the last."""
        rate = self._rate(now)
        parts = [self._share()]
        if rate and self.total is not None and self._done < self.total:
            parts.append(f"ETA {format_duration((self.total - self._done) / rate)}")
        parts += self._shown_fields()
        if rate and not any(name.endswith(_PER_SECOND) for name in self._fields):
            parts.append(f"{_format_rate(rate)} {self.unit}/s")
        return parts

    def _share(self) -> str:
        if not self.total:
            return f"{self._done:,} {self.unit}"
        return f"{self._done / self.total:.0%} {self._done:,}/{self.total:,} {self.unit}"

    def _shown_fields(self) -> list[str]:
        return [_format_field(name, value) for name, value in self._fields.items()]

    def _rate(self, now: float) -> float:
        """Units per second over about the last half minute.

        Counted from the first update: a run that goes on begins with what was done before.
        """
        then, done = self._samples[0] if len(self._samples) > 1 else (self._started, 0)
        return (self._done - done) / (now - then) if now > then else 0.0


def is_terminal(stream: TextIO) -> bool:
    """Whether a line on this stream can be redrawn."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def format_value(value: float | int | str) -> str:
    """Formats a loss, a metric, a rate or a count for people."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.1f}"
    if size >= 1e-3 or size == 0:
        return f"{value:.4f}"
    return f"{value:.2e}"


def format_duration(seconds: float) -> str:
    """Formats seconds as ``4.2 s``, ``1:23`` or ``2:03:45``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _join(stage: str, parts: list[str]) -> str:
    return f"{stage}: {' | '.join(parts)}"


def _format_field(name: str, value: float | int | str) -> str:
    if name.endswith(_PER_SECOND):
        return f"{_format_rate(float(value))} {name.removesuffix(_PER_SECOND)}/s"
    return f"{name.replace('_at_', '@')} {format_value(value)}"


def _format_rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _terminal_width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return shutil.get_terminal_size().columns
