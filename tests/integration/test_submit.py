"""Runs as jobs on a Ray cluster of three raylets, started as its users start it."""

import os
import subprocess
import sys

import pytest

from egra_dist.catalog.synth import SynthSettings, synthesize
from tests.clusters import LocalCluster

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def address():
    """The job server of a cluster of three nodes that ends with these tests."""
    with LocalCluster(0, (1, 1), quick=False) as cluster:
        yield cluster.url


def submit(address, catalog, out, *options):
    command = [sys.executable, "-m", "egra_dist", "submit", "configs/default.yaml"]
    command += ["--catalog", str(catalog), "--out", str(out), "--address", address, *options]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )


def test_run_is_sent_followed_and_not_sent_again(address, tmp_path):
    settings = SynthSettings(num_items=100, num_users=100, num_interactions=1000)
    catalog = synthesize(settings, tmp_path / "catalog").path
    done = submit(address, catalog, tmp_path / "first", "--stage", "graphs")
    assert done.returncode == 0, done.stderr
    assert "first: submitted as first-1" in done.stderr
    assert "--stage graphs" in done.stdout
    made = {path.name.split("-")[0] for path in (tmp_path / "first" / "artifacts").iterdir()}
    assert "graphs" in made
    again = submit(address, catalog, tmp_path / "first", "--stage", "graphs")
    assert again.returncode == 0
    assert "first: finished before, as first-1" in again.stderr


def test_job_that_fails_has_exit_status_1_and_ends_with_its_reason(address, tmp_path):
    settings = SynthSettings(num_items=100, num_users=100, num_interactions=1000)
    catalog = synthesize(settings, tmp_path / "catalog").path
    broken = ["cluster.environment.GLOO_SOCKET_IFNAME=nowhere0", "cluster.max_failures=0"]
    quick = ["item_graph.source=raw", "train.max_epochs=1"]
    options = [f"--set={setting}" for setting in (*broken, *quick)]
    done = submit(address, catalog, tmp_path / "broken", "--workers", "2", *options)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "nowhere0" in "".join(done.stdout.splitlines()[-3:])
    assert "broken-1: failed" in done.stderr.splitlines()[-1]
    assert "nowhere0" in done.stderr.splitlines()[-1]


def test_users_mistake_has_exit_status_2_and_ends_with_its_reason(address, tmp_path):
    done = submit(address, tmp_path / "elsewhere", tmp_path / "second")
    assert done.returncode == 2
    reason = f"{tmp_path}/elsewhere: not a catalog folder"
    assert reason in done.stdout.strip().splitlines()[-1]
    assert "second-1: failed" in done.stderr
    assert reason in done.stderr.strip().splitlines()[-1]


def test_what_cannot_work_is_not_sent(address, tmp_path):
    done = submit(address, tmp_path, tmp_path / "third", "--set", "train.batch_sise=1")
    assert done.returncode == 2
    assert "batch_size" in done.stderr
    assert "submitted" not in done.stderr
