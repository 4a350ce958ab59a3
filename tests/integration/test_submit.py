"""Runs as jobs on a Ray cluster of one machine, started as its users start it."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from egra_dist.catalog.synth import SynthSettings, synthesize

PORTS = (
    "--port",
    "--dashboard-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--ray-client-server-port",
)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The job server of a cluster that ends with these tests."""
    ports = free_ports(len(PORTS))
    url = f"http://127.0.0.1:{ports[1]}"
    home = tmp_path_factory.mktemp("home")
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        command += [part for pair in zip(PORTS, ports, strict=True) for part in pair]
        command += ["--node-ip-address", "127.0.0.1", "--num-cpus", "1", "--temp-dir", folder]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        quiet = {"RAY_AUTH_MODE": "disabled", "HOME": str(home), "PATH": path}
        with subprocess.Popen(
            [*command, "--disable-usage-stats"],
            env={**os.environ, **quiet},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as head:
            try:
                wait_for(url)
                yield url
            finally:
                head.terminate()


def wait_for(url):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/api/version", timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"no job server at {url}")


def submit(address, catalog, out, *options):
    command = [sys.executable, "-m", "egra_dist", "submit", "configs/default.yaml"]
    command += ["--catalog", str(catalog), "--out", str(out), "--address", address, *options]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
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


def test_failing_job_has_the_commands_exit_status_and_ends_with_its_reason(address, tmp_path):
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
