"""A worker that is stuck tells where, and ends."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from egra_dist.train.watchdog import EXIT_STUCK, Watchdog

STUCK = """
import ctypes, sys, time
from pathlib import Path
from egra_dist.train import watchdog

watchdog._GRACE_SECONDS = 0.2

def wait_for_ever():
    {how}

with watchdog.Watchdog(3, Path(sys.argv[1]), 0.4, print) as dog:
    dog.beat(7)
    wait_for_ever()
"""


@pytest.mark.parametrize(
    ("how", "status", "words"),
    [
        ("time.sleep(60)", EXIT_STUCK, "worker 3: no step for 0.4 s after step 7"),
        ("ctypes.PyDLL(None).sleep(60)", 1, "Timeout"),  # no other thread of Python can run
    ],
)
def test_stuck_process_ends_and_tells_where(tmp_path, how, status, words):
    started = time.monotonic()
    command = [sys.executable, "-c", STUCK.format(how=how), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert time.monotonic() - started < 50
    assert done.returncode == status, done.stderr
    stacks = (tmp_path / "stuck-rank-3.txt").read_text()
    assert words in stacks and "in wait_for_ever" in stacks
    if status == EXIT_STUCK:
        assert "it is started again" in done.stdout


def test_process_that_goes_on_is_left_alone(tmp_path: Path):
    warnings: list[str] = []
    with Watchdog(0, tmp_path, 5, warnings.append) as dog:
        for step in range(3):
            dog.beat(step)
    assert warnings == [] and list(tmp_path.iterdir()) == []
