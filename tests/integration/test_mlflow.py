"""A real MLflow server that goes away and comes back, and a database that many open at once."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.config import load_config
from egra_dist.pipeline import run_pipeline
from egra_dist.tracking.experiment import Experiment
from egra_dist.tracking.reader import Records
from egra_dist.tracking.recorder import MetricRecorder
from tests.disturbance import last_step

pytestmark = pytest.mark.timeout(400)

NUM_STEPS = 450


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


def start_a_run(pool: ThreadPoolExecutor, folder: Path, uri: str) -> Future:
    """A pipeline that records every step to a server."""
    small = SynthSettings(num_items=150, num_users=200, num_interactions=2000)
    catalog = synthesize(small, folder / "catalog")
    settings = ["item_graph.source=raw", f"train.max_steps={NUM_STEPS}", "train.max_epochs=10000"]
    settings += ["train.patience=10000", "train.evaluate_every=50", "train.batch_size=512"]
    settings += [f"tracking.uri={uri}", "tracking.experiment=run", "tracking.log_every_steps=1"]
    config = load_config(None, [*settings, "cluster.cpus_per_worker=1"])
    return pool.submit(run_pipeline, config, catalog, folder / "whole", "evaluate")


def the_worker() -> psutil.Process:
    """The process that trains."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "RayTrainWorker" in process.name() + " ".join(process.cmdline()):
                return process
    raise AssertionError("nobody trains")


def check_run_is_recorded_whole(uri: str) -> None:
    """Every step once, all finished."""
    records = Records(uri)
    runs = records.runs("run")
    assert {run.status for run in runs} == {"FINISHED"}
    (parent,) = (run for run in runs if run.parent_id is None)
    train = records.children(parent)["train"]
    for name in ("train/loss_total", "alignment/lambda"):
        steps = [value.step for value in records.series(train.run_id, name)]
        assert steps == list(range(NUM_STEPS)), name
    assert len(records.children(parent)) == len(runs) - 1


def test_a_server_that_goes_and_comes_back_has_everything_once(local_ray, tmp_path, port):
    """A recorder, and a whole run whose middle third goes by while the server is away."""
    pool, whole = ThreadPoolExecutor(), tmp_path / "whole"
    with mlflow_server(tmp_path, port) as uri:
        run = start_a_run(pool, tmp_path, uri)
        experiment = Experiment.open(uri, tmp_path / "run", "egra", params={"seed": 1})
        parent_id, train_id = experiment.run_id, experiment.child("train")
        recorder = MetricRecorder(uri, train_id, experiment.spool, interval_seconds=0.1)
        for step in range(1000):
            recorder.log(step, {"loss": step, "gap": float("nan")})
        wait_for(lambda: recorder._spool.is_delivered(), 60)
        wait_for(lambda: run.done() or last_step(whole) >= NUM_STEPS // 3, 120)
    for step in range(1000, 1500):
        recorder.log(step, {"loss": step})
        time.sleep(0.001)
    experiment.log_dict({"while": "away"}, "away.json")
    assert not recorder._spool.is_delivered()
    wait_for(lambda: run.done() or last_step(whole) >= NUM_STEPS * 2 // 3, 120)
    worker = the_worker()
    worker.suspend()  # the server takes longer to start than the last third of this run
    with mlflow_server(tmp_path, port):
        worker.resume()
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
        assert run.result(timeout=120)["models"]
        check_run_is_recorded_whole(uri)


def test_processes_that_open_a_fresh_database_at_once_all_succeed(tmp_path):
    code = f"""
from egra_dist.tracking.client import open_client
client = open_client("sqlite:///{tmp_path}/mlflow.db")
client.log_batch(client.create_run("0").info.run_id)
"""
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
