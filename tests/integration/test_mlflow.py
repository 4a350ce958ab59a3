"""A real MLflow server that goes away and comes back, and a database that many open at once."""

import subprocess
import sys
import time
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from egra_dist.tracking.experiment import Experiment
from egra_dist.tracking.reader import Records
from egra_dist.tracking.recorder import MetricRecorder
from tests.mlflow_page import mlflow_server

pytestmark = pytest.mark.timeout(180)


def wait_for(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


USER, PASSWORD = "admin", "correct-horse-battery"
AUTH = ("--app-name", "basic-auth")
SECRETS = {
    "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "only for this test",
}


def test_a_server_with_passwords_that_goes_and_comes_back_has_everything_once(
    tmp_path, free_port, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    with mlflow_server(tmp_path, free_port, *AUTH, environment=SECRETS) as uri:
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"{uri}/api/2.0/mlflow/experiments/get?experiment_id=0")
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
    with mlflow_server(tmp_path, free_port, *AUTH, environment=SECRETS):
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
