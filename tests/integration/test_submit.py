"""Runs as jobs on a Ray cluster of three raylets, started as its users start it."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from egra_dist.catalog.synth import SynthSettings, synthesize
from tests.clusters import REPOSITORY, LocalCluster, wait_for
from tests.disturbance import last_step

pytestmark = pytest.mark.timeout(700)


# What another user's job does to the memory of the nodes that have CPUs: three times its size.
FILLED = """
import time
import numpy, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
ray.init(log_to_driver=False)
make = ray.remote(num_cpus=0)(lambda: numpy.ones(30 << 20, numpy.uint8))
nodes = [node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU")]
places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes * 10]
kept = [make.options(scheduling_strategy=place).remote() for place in places]
ray.wait(kept, num_returns=len(kept), fetch_local=False)
time.sleep(3600)
"""


@pytest.fixture(scope="module")
def cluster():
    """A cluster of three nodes that ends with these tests."""
    with LocalCluster(0, (1, 1), quick=False) as started:
        yield started


@pytest.fixture(scope="module")
def address(cluster):
    """Its job server."""
    return cluster.url


def start(*command):
    """Starts a Python module as a command of its own, which Ctrl-C ends wherever tests run."""
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(process):
    output, errors = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def start_submit(address, catalog, out, *options):
    where = ("--catalog", str(catalog), "--out", str(out), "--address", address)
    return start("egra_dist", "submit", "configs/default.yaml", *where, *options)


def submit(address, catalog, out, *options):
    return ended(start_submit(address, catalog, out, *options))


def test_run_is_sent_followed_and_not_sent_again(address, tmp_path):
    settings = SynthSettings(num_items=100, num_users=100, num_interactions=1000)
    catalog = synthesize(settings, tmp_path / "catalog").path
    done = submit(address, catalog, tmp_path / "first", "--stage", "graphs")
    assert done.returncode == 0, done.stderr
    assert "first: submitted as first-1" in done.stderr
    assert "INFO" not in done.stderr  # of Ray's own words
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


@pytest.mark.slow
def test_ctrl_c_detaches_the_same_command_attaches_and_a_stop_saves(address, tmp_path):
    settings = SynthSettings(num_items=100, num_users=100, num_interactions=1000)
    catalog, out = synthesize(settings, tmp_path / "catalog").path, tmp_path / "watched"
    endless = ("item_graph.source=raw", "train.max_epochs=1000000", "train.patience=1000000")
    options = [f"--set={setting}" for setting in endless]
    watching = start_submit(address, catalog, out, *options)
    wait_for(lambda: last_step(out) > 0, 200, "the first steps")
    watching.send_signal(signal.SIGINT)
    left = ended(watching)
    assert left.returncode == 130
    assert "detached; watched-1 goes on" in left.stderr.splitlines()[-1]
    stop = shlex.split(left.stderr.splitlines()[-1].split("`")[1])
    assert "attached to watched-1" in submit(address, catalog, out, *options, "--no-wait").stderr
    again, seen = start_submit(address, catalog, out, *options), last_step(out)
    wait_for(lambda: last_step(out) > seen, 100, "further steps")
    assert ended(start("ray.scripts.scripts", *stop[1:])).returncode == 0
    stopped = ended(again)
    assert stopped.returncode == 1
    assert "watched-1: stopped" in stopped.stderr.splitlines()[-1]
    assert list(out.glob("artifacts/*/checkpoints/state.json"))


def test_rays_own_command_runs_a_stage(address, tmp_path):
    settings = SynthSettings(num_items=100, num_users=100, num_interactions=1000)
    catalog, out = synthesize(settings, tmp_path / "catalog").path, tmp_path / "own"
    job = ("job", "submit", "--address", address, "--working-dir", ".", "--")
    job += ("python", "jobs/train.py", "configs/default.yaml", "--workers", "2")
    job += ("--catalog", str(catalog), "--out", str(out))
    job += ("--set", "item_graph.source=raw", "--set", "train.max_steps=3")
    done = ended(start("ray.scripts.scripts", *job))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(out.glob("artifacts/train-*/training.json"))) == 1


@pytest.mark.slow
def test_run_needs_no_room_in_the_object_store(cluster, tmp_path):
    settings = SynthSettings(num_items=100, num_users=100, num_interactions=1000)
    catalog, out = synthesize(settings, tmp_path / "catalog").path, tmp_path / "crowded"
    job = ("--address", cluster.url, "--submission-id", "filling", "--no-wait", "--")
    sent = ended(start("ray.scripts.scripts", "job", "submit", *job, "python", "-c", FILLED))
    assert sent.returncode == 0, sent.stderr

    def num_spilled():
        return len(list(Path(cluster.folder).glob("*/session_*/ray_spilled_objects*/*")))

    wait_for(lambda: num_spilled() > 5, 100, "objects that were spilled")
    quick = ["--set=item_graph.source=raw", "--set=train.max_steps=3", "--workers", "2"]
    done = submit(cluster.url, catalog, out, *quick)
    assert done.returncode == 0, done.stdout + done.stderr
    stop = ("job", "stop", "filling", "--address", cluster.url)
    assert ended(start("ray.scripts.scripts", *stop)).returncode == 0
