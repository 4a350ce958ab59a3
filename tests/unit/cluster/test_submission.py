"""What is sent to a cluster, and that it is sent once."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import yaml

from egra_dist.cluster import jobs
from egra_dist.cluster.jobs import JobServer
from egra_dist.cluster.submission import Submission
from egra_dist.config import parse_config
from egra_dist.errors import UserError


class Status(str):
    """A job's status, as Ray's."""

    def is_terminal(self):
        return self in ("SUCCEEDED", "FAILED", "STOPPED")


class Client:
    """A job server that keeps what it gets."""

    def __init__(self, address):
        self.jobs = []

    def list_jobs(self):
        return self.jobs

    def submit_job(self, *, entrypoint, submission_id, runtime_env, metadata):
        job = SimpleNamespace(
            submission_id=submission_id,
            status=Status("RUNNING"),
            start_time=len(self.jobs),
            metadata=metadata,
            message="",
            driver_exit_code=None,
        )
        self.jobs.append(job)

    def get_job_info(self, job_id):
        return next(job for job in self.jobs if job.submission_id == job_id)

    def get_job_logs(self, job_id):
        return "first\nsecond\nthird\n"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", Client)
    monkeypatch.setattr(jobs, "choose_authentication", lambda local: None)
    monkeypatch.setattr(jobs, "_POLL_SECONDS", 0)
    return JobServer("http://cluster:8265")


def submission(tmp_path, name="first", **settings):
    return Submission(name, parse_config(settings), tmp_path / "catalog", tmp_path / "run")


def test_package_holds_the_settings_and_runs_by_itself(tmp_path):
    folder = tmp_path / "package"
    folder.mkdir()
    sent = submission(tmp_path, seed=7)
    sent.write_package(folder)
    assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == 7
    code = "import egra_dist; print(egra_dist.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    assert found.strip() == str(folder / "egra_dist" / "__init__.py")
    assert sent.command()[:5] == ["python", "-m", "egra_dist", "run", "config.yaml"]


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "é", "a" * 101])
def test_name_that_cannot_be_a_jobs(tmp_path, name):
    with pytest.raises(UserError, match="--name"):
        submission(tmp_path, name)


def test_password_is_not_sent(tmp_path):
    sent = submission(tmp_path, tracking={"uri": "http://me:secret@host:5000"})
    with pytest.raises(UserError, match=r"tracking\.uri") as error:
        _ = sent.digest
    assert "secret" not in str(error.value)


def test_live_run_is_attached_to_and_dead_one_sent_again(server, tmp_path):
    sent = submission(tmp_path)
    assert server.submit(sent) == "first-1"
    assert server.submit(sent) == "first-1"
    server._client.jobs[0].status = Status("FAILED")
    assert server.submit(sent) == "first-2"
    server._client.jobs[1].status = Status("SUCCEEDED")
    assert server.submit(sent) == "first-2"
    assert len(server._client.jobs) == 2


def test_live_run_with_other_settings_is_left_alone(server, tmp_path):
    server.submit(submission(tmp_path))
    with pytest.raises(UserError, match=r"'first' is running as first-1 with other settings"):
        server.submit(submission(tmp_path, seed=1))
    assert server.submit(submission(tmp_path, "second", seed=1)) == "second-1"


def test_finished_run_is_sent_again_with_other_settings(server, tmp_path):
    server.submit(submission(tmp_path))
    server._client.jobs[0].status = Status("SUCCEEDED")
    assert server.submit(submission(tmp_path, seed=1)) == "first-2"


def test_two_equal_submits_at_a_time_send_one(server, tmp_path, monkeypatch):
    sent, other = submission(tmp_path), Client.submit_job

    def overtaken(client, **job):
        other(client, **job)
        raise RuntimeError("Job with submission_id first-1 already exists")

    monkeypatch.setattr(Client, "submit_job", overtaken)
    assert server.submit(sent) == "first-1"


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", None, 1), ("STOPPED", None, 1)],
)
def test_exit_status_is_the_jobs(server, tmp_path, status, code, expected):
    job_id = server.submit(submission(tmp_path))
    server._client.jobs[0].status = Status(status)
    server._client.jobs[0].driver_exit_code = code
    assert server.follow(job_id, None) == expected


@pytest.mark.parametrize("kind", [RuntimeError, requests.ConnectionError, ConnectionError])
def test_lost_cluster_is_a_failure_and_no_mistake_of_the_users(server, monkeypatch, caplog, kind):
    def lose(job_id):
        raise kind("refused")

    monkeypatch.setattr(server._client, "get_job_info", lose)
    assert server.follow("first-1", None) == 1
    assert "the same command goes on" in caplog.text


@pytest.mark.parametrize("where", ["setting", "path", "value"])
def test_no_token_is_sent(tmp_path, monkeypatch, where):
    monkeypatch.setenv("SOME_TOKEN", "tok-12345")
    sent = submission(tmp_path)
    if where == "setting":
        sent = submission(tmp_path, item_graph={"source": "vectors", "vectors": "s3://a:b@c/d"})
    elif where == "path":
        sent = Submission("first", parse_config({}), Path("s3://a/?access_key=b"), tmp_path)
    else:
        sent = submission(tmp_path, tracking={"experiment": "tok-12345"})
    with pytest.raises(UserError, match="readable on the cluster") as error:
        _ = sent.digest
    assert "tok-12345" not in str(error.value)


def test_output_is_shown_once_however_often_the_connection_breaks(server, tmp_path, monkeypatch):
    log, ends, shown = "first\nsecond\nthird\n", iter([7, 13]), []
    job_id = server.submit(submission(tmp_path))

    async def tail(client, job_id):
        end = next(ends)
        yield log[:4]
        yield log[4:end]
        if end == 13:
            client.jobs[0].status = Status("SUCCEEDED")
        raise RuntimeError("connection closed")

    monkeypatch.setattr(Client, "tail_job_logs", tail, raising=False)
    assert server.follow(job_id, shown.append) == 0
    assert "".join(shown) == log


def test_no_server_is_said_in_one_line():
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9: "):
        JobServer("http://127.0.0.1:9")
    with pytest.raises(UserError, match="expected http://HOST:PORT"):
        JobServer("127.0.0.1:6379")
