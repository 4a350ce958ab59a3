"""A real MLflow server that goes away and comes back, and a database that many open at once."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from egra_dist.tracking.experiment import Experiment
from egra_dist.tracking.reader import Records
from egra_dist.tracking.recorder import MetricRecorder

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = (folder / "server.log").open("a")
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        wait_until_up(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)
        log.close()


def wait_until_up(url: str, server: subprocess.Popen) -> None:
    while True:
        assert server.poll() is None, "the server ended"
        try:
            urlopen(url, timeout=1).close()
        except (URLError, OSError):
            time.sleep(0.2)
        else:
            return


def wait_for(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def test_a_server_that_goes_and_comes_back_has_everything_once(tmp_path, port):
    with mlflow_server(tmp_path, port) as uri:
        experiment = Experiment.open(uri, tmp_path / "run", "egra", params={"seed": 1})
        parent_id, train_id = experiment.run_id, experiment.child("train")
        recorder = MetricRecorder(uri, train_id, experiment.spool, interval_seconds=0.1)
        for step in range(1000):
            recorder.log(step, {"loss": step, "gap": float("nan")})
        wait_for(lambda: recorder._spool.is_delivered(), 60)
    for step in range(1000, 1500):
        recorder.log(step, {"loss": step})
        time.sleep(0.001)
    experiment.log_dict({"while": "away"}, "away.json")
    assert not recorder._spool.is_delivered()
    with mlflow_server(tmp_path, port):
        for step in range(1500, 2000):
            recorder.log(step, {"loss": step})
        assert recorder.close(timeout=60)
        assert experiment.close(timeout=60)
        records = Records(uri)
        series = records.series(train_id, "loss")
        assert [value.step for value in series] == list(range(2000))
        assert [value.value for value in series] == list(range(2000))
        assert len(records.series(train_id, "gap")) == 1000
        assert {records.run(run_id).status for run_id in (parent_id, train_id)} == {"FINISHED"}


def test_processes_that_open_a_fresh_database_at_once_all_succeed(tmp_path):
    code = f"""
from egra_dist.tracking.client import open_client
client = open_client("sqlite:///{tmp_path}/mlflow.db")
client.log_batch(client.create_run("0").info.run_id)
"""
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
