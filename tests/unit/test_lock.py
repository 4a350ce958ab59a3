import errno
import fcntl
import logging
import subprocess
import sys
import threading
import time

import pytest

from egra_dist.artifact import build
from egra_dist.lock import locked

BUILD = """
import sys, time
from pathlib import Path
from egra_dist.artifact import build

def make(partial):
    print("made", flush=True)
    (partial / "first").touch()
    time.sleep(float(sys.argv[2]))
    (partial / "second").touch()

build(Path(sys.argv[1]), "knn", {"k": 10}, {}, make, resumable=True)
"""


def start_build(folder, seconds):
    command = [sys.executable, "-c", BUILD, str(folder), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_one_of_many_threads_holds_the_lock(tmp_path):
    holders, seen = [], []

    def hold():
        for _ in range(30):
            with locked(tmp_path / "lock", "another"):
                holders.append(threading.get_ident())
                seen.append(len(holders))
                time.sleep(0)
                holders.pop()

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 120
    assert not list(tmp_path.iterdir())


def test_an_artifact_that_two_processes_want_is_made_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first = start_build(tmp_path / "knn", seconds=1)
    assert first.stdout.readline() == "made\n"
    second = build(tmp_path / "knn", "knn", {"k": 10}, {}, lambda partial: pytest.fail("again"))
    assert "another process makes" in caplog.text
    assert {path.name for path in second.folder.iterdir()} == {"first", "second", "manifest.json"}
    assert first.wait() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["knn"]


def test_who_waited_goes_on_when_the_maker_was_killed(tmp_path):
    first = start_build(tmp_path / "knn", seconds=60)
    first.stdout.readline()
    second = start_build(tmp_path / "knn", seconds=0)
    time.sleep(0.2)
    assert second.poll() is None
    first.kill()
    assert second.communicate(timeout=20)[0] == "made\n"
    assert second.returncode == 0
    assert (tmp_path / "knn" / "second").exists()
    first.communicate()


def test_without_locks_it_warns_and_goes_on(tmp_path, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with locked(tmp_path / "lock", "another"):
        pass
    assert "no locks on this file system" in caplog.text
