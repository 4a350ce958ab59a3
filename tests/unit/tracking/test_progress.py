"""One live line on a terminal, one log line per interval elsewhere, one last line always."""

import io
import logging
import os
import pty
import re

import pytest

from egra_dist.tracking import progress
from egra_dist.tracking.progress import StageProgress, format_duration, format_value

LOGGER = "egra_dist.tracking.progress"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def read_to_newline(reader: int) -> str:
    shown = ""
    while not shown.endswith("\n"):
        shown += os.read(reader, 100_000).decode()
    return shown


def test_logs_one_line_per_interval_with_share_rate_and_eta(clock, caplog):
    with caplog.at_level(logging.INFO, LOGGER):
        stage = StageProgress("train", total=100, interval_seconds=10, stream=io.StringIO())
        for step in range(1, 41):
            clock.now += 1
            stage.update(step, loss=0.693147, epoch=step // 10)
    assert [r.getMessage() for r in caplog.records] == [
        f"train: {done}% {done}/100 steps | ETA {eta} | loss 0.6931 | epoch {done // 10}"
        " | 1 steps/s"
        for done, eta in ((10, "1:30"), (20, "1:20"), (30, "1:10"), (40, "1:00"))
    ]


def test_close_leaves_one_summary_line_once(clock, caplog):
    with caplog.at_level(logging.INFO, LOGGER):
        with StageProgress("knn", total=4, unit="blocks", stream=io.StringIO()) as stage:
            clock.now += 83
            stage.update(4)
            caplog.clear()
            stage.close("recall 0.99")
        stage.close()
    assert [r.getMessage() for r in caplog.records] == ["knn: done in 1:23, 4 blocks | recall 0.99"]


def test_an_exception_says_stopped(clock, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    with (
        pytest.raises(RuntimeError),
        StageProgress("train", stream=io.StringIO()) as stage,
    ):
        stage.update(7, loss=1.5)
        raise RuntimeError
    assert caplog.messages == ["train: stopped in 0.0 s, 7 steps | loss 1.5000"]


def test_steps_of_an_earlier_run_do_not_count_for_the_rate(clock, caplog):
    with caplog.at_level(logging.INFO, LOGGER):
        stage = StageProgress("train", total=1000, stream=io.StringIO())
        for _ in range(11):
            clock.now += 1
            stage.update(899 + int(clock.now - 100))
    assert caplog.messages == ["train: 91% 909/1,000 steps | ETA 1:31 | 1 steps/s"]


def test_there_is_no_eta_at_the_end(clock, caplog):
    with caplog.at_level(logging.INFO, LOGGER):
        stage = StageProgress("train", total=20, stream=io.StringIO())
        clock.now += 10
        stage.update(20)
    assert caplog.messages == ["train: 100% 20/20 steps | 2 steps/s"]


def test_a_named_rate_takes_the_place_of_the_own(clock, caplog):
    with caplog.at_level(logging.INFO, LOGGER):
        stage = StageProgress("train", stream=io.StringIO())
        clock.now += 10
        stage.update(10, triplets_per_second=12345.6)
    assert caplog.messages == ["train: 10 steps | 12,346 triplets/s"]


def test_a_terminal_shows_one_redrawn_line_cut_to_its_width(clock):
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as terminal:
        stage = StageProgress("train", total=10, stream=terminal)
        for step in range(1, 11):
            clock.now += 1
            stage.update(step, loss=1 / step, note="x" * 200)
        stage.close("finished")
        shown = read_to_newline(reader)
    os.close(reader)
    frames = shown.split(progress.CLEAR_LINE)[1:]
    assert len(frames) == 12
    assert frames.pop(0) == "train: starting"
    assert all("\n" not in frame and len(frame) < 80 for frame in frames[:-1])
    assert frames[4].startswith("train 50% 5/10 steps ETA 5.0 s loss 0.2000 note xxx")
    assert frames[-1] == "train: done in 10.0 s, 10 steps | finished\r\n"


def test_a_line_that_fits_a_terminal_is_shown_with_separators(clock):
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as terminal:
        stage = StageProgress("train", total=10, stream=terminal)
        clock.now += 1
        stage.update(5, recall_at_20=0.1)
        stage.close()
        shown = read_to_newline(reader)
    os.close(reader)
    assert "train: 50% 5/10 steps | ETA 1.0 s | recall@20 0.1000 | 5 steps/s" in shown


def test_a_terminal_is_not_flooded(clock):
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as terminal:
        stage = StageProgress("train", stream=terminal)
        for step in range(1000):
            clock.now += 0.001
            stage.update(step)
        stage.close()
        shown = read_to_newline(reader)
    os.close(reader)
    assert len(re.findall(re.escape(progress.CLEAR_LINE), shown)) <= 12


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.69314, "0.6931"),
        (0.0, "0.0000"),
        (4e-5, "4.00e-05"),
        (123.456, "123.5"),
        (98765.4, "98,765"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (12345, "12,345"),
        ("easy", "easy"),
    ],
)
def test_values_are_readable(value, text):
    assert format_value(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (83, "1:23"), (7425, "2:03:45"), (59.96, "1:00")]
)
def test_durations_are_readable(seconds, text):
    assert format_duration(seconds) == text
