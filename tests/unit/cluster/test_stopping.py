"""SIGTERM to the driver reaches the workers, and ends the driver when they have saved."""

import logging
import os
import signal
import time

import pytest

from egra_dist.cluster import stopping
from egra_dist.cluster.stopping import stopped_by_sigterm
from egra_dist.errors import EXIT_STOPPED


class Board:
    def __init__(self, hears=True):
        self.hears = hears
        self.stopped = False
        self.warnings = ["a disk is full"]

    def take_warnings(self):
        taken, self.warnings = self.warnings, []
        return taken

    def stop(self):
        self.stopped = True

    def is_heard(self):
        return self.hears


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(stopping, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(stopping, "_SECONDS_TO_HEAR", 0.05)
    earlier = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) is earlier


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_block_goes_on_until_the_workers_have_saved():
    board, saved = Board(), []
    with pytest.raises(SystemExit) as ended, stopped_by_sigterm(board):
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: board.stopped)
        time.sleep(0.2)
        saved.append(True)
    assert ended.value.code == EXIT_STOPPED and saved


@pytest.mark.parametrize("hears", [True, False])
def test_the_block_ends_when_nobody_hears_or_by_a_second_signal(hears):
    board = Board(hears)
    with pytest.raises(SystemExit) as ended, stopped_by_sigterm(board):
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: board.stopped)
        if hears:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)
        pytest.fail("it went on")
    assert ended.value.code == EXIT_STOPPED


def test_without_a_signal_nothing_ends_and_warnings_are_shown(caplog):
    board = Board()
    with caplog.at_level(logging.WARNING), stopped_by_sigterm(board):
        wait_for(lambda: not board.warnings)
    assert caplog.messages == ["a disk is full"]
    assert not board.stopped
