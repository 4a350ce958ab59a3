"""The tasks on Ray: the same graph, and only the rest after a failure."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egra_dist.graph.knn import KnnGraph, KnnSettings, Workers, build_knn

pytestmark = pytest.mark.timeout(500)

SETTINGS = KnnSettings(k=8, method="routed", list_size=200, recall=0.95, audit_rows=300)
EXACT = KnnSettings(k=8, method="exact", list_size=200)

NODES = """
from ray.cluster_utils import Cluster
from threading import Thread
import ray

def lose_a_node(cluster, node, work):
    while not list(work.glob(f"*/{sys.argv[3]}/*.npy")):
        time.sleep(0.01)
    cluster.remove_node(node)
    print("lost", flush=True)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
node = cluster.add_node(num_cpus=2)
ray.init(address=cluster.address, log_to_driver=False)
Thread(target=lose_a_node, args=(cluster, node, folder / "work"), daemon=True).start()
graph = build_knn(vectors, settings, workdir=folder / "work", workers=Workers(ray=True))
graph.save(folder / "graph")
"""

SETUP = """
import sys
import time
from pathlib import Path
import numpy as np
from egra_dist.cluster.session import ray_session
from egra_dist.config import ClusterSettings
from egra_dist.graph.knn import KnnSettings, Workers, build_knn, cost, selfjoin, sweep

selfjoin.PAIRS_PER_TASK = 2e4
sweep.SMALLEST_BLOCK = 1500
cost.DIRECT_ROWS = 1000
folder = Path(sys.argv[1])
settings = KnnSettings.model_validate_json(sys.argv[2])
vectors = np.load(folder / "vectors.npy")
"""

DRIVER = """
with ray_session(ClusterSettings(num_workers=2, cpus_per_worker=1)):
    build_knn(vectors, settings, workdir=folder / "work", workers=Workers(ray=True))
"""


@cache
def clustered(num_rows, dim=32, num_clusters=80):
    generator = np.random.default_rng(0)
    centers = generator.standard_normal((num_clusters, dim))
    rows = centers[generator.integers(0, num_clusters, num_rows)]
    return (rows + 0.7 * generator.standard_normal((num_rows, dim))).astype(np.float32)


@cache
def undisturbed(num_rows, settings=SETTINGS) -> KnnGraph:
    """The graph of the same rows, made by one thread without an incident."""
    return build_knn(clustered(num_rows), settings)


@pytest.fixture(autouse=True)
def _many_tasks(monkeypatch):
    from egra_dist.graph.knn import cost, selfjoin, sweep

    monkeypatch.setattr(selfjoin, "PAIRS_PER_TASK", 2e4)
    monkeypatch.setattr(sweep, "SMALLEST_BLOCK", 1500)
    monkeypatch.setattr(cost, "DIRECT_ROWS", 1000)


@dataclass(frozen=True)
class DiesOnce:
    """A task whose process is killed the first time it runs."""

    task: Any
    flag: Path

    @property
    def weight(self):
        return self.task.weight

    def run(self, folder):
        if not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.task.run(folder)


def dying(tasks, flag):
    """The tasks, or rounds of tasks, of which the first to run is killed."""
    return [dying(t, flag) if isinstance(t, list) else DiesOnce(t, flag) for t in tasks]


def test_ray_and_threads_give_the_same_graph(local_ray):
    there = build_knn(clustered(6000), SETTINGS, workers=Workers(ray=True))
    assert np.array_equal(there.neighbors, undisturbed(6000).neighbors)
    assert np.array_equal(there.scores, undisturbed(6000).scores)


@pytest.mark.parametrize(
    ("settings", "makes_tasks"), [(SETTINGS, "visit_tasks"), (EXACT, "sweep_tasks")]
)
def test_a_killed_worker_costs_its_task(local_ray, tmp_path, monkeypatch, settings, makes_tasks):
    from ray import cloudpickle

    from egra_dist.graph.knn import selfjoin

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    flag = tmp_path / "died"
    make = getattr(selfjoin, makes_tasks)
    monkeypatch.setattr(
        selfjoin,
        makes_tasks,
        lambda *arguments: dying(make(*arguments), flag),
    )
    work = tmp_path / "work"
    killed = build_knn(clustered(6000), settings, workdir=work, workers=Workers(ray=True))
    monkeypatch.setattr(selfjoin, makes_tasks, make)
    assert flag.exists()
    assert np.array_equal(killed.neighbors, undisturbed(6000, settings).neighbors)


@pytest.mark.parametrize(("settings", "stage"), [(SETTINGS, "visit-near"), (EXACT, "sweep")])
def test_a_killed_driver_costs_the_tasks_it_waited_for(local_ray, tmp_path, settings, stage):
    np.save(tmp_path / "vectors.npy", clustered(12_000))
    command = [sys.executable, "-c", SETUP + DRIVER, str(tmp_path), settings.model_dump_json()]
    driver = subprocess.Popen(command, start_new_session=True)
    try:
        finished = wait_for_tasks(tmp_path / "work", stage, 3, driver)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    times = {path: path.stat().st_mtime_ns for path in finished}
    time.sleep(2)  # the killed session's processes notice and go
    unchanged = []
    with ThreadPoolExecutor() as here:
        work, workers = tmp_path / "work", Workers(ray=True)
        again = here.submit(build_knn, clustered(12_000), settings, workdir=work, workers=workers)
        while not again.done():
            try:
                unchanged += [path.stat().st_mtime_ns == times[path] for path in times]
            except FileNotFoundError:
                break
            time.sleep(0.01)
    assert unchanged
    assert all(unchanged)
    assert np.array_equal(again.result().neighbors, undisturbed(12_000, settings).neighbors)
    assert np.array_equal(again.result().scores, undisturbed(12_000, settings).scores)


@pytest.mark.parametrize(("settings", "stage"), [(SETTINGS, "visit-near"), (EXACT, "sweep")])
def test_a_lost_node_costs_its_tasks(tmp_path, settings, stage):
    np.save(tmp_path / "vectors.npy", clustered(12_000))
    asked = [str(tmp_path), settings.model_dump_json(), stage]
    command = [sys.executable, "-c", SETUP + NODES, *asked]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "lost" in done.stdout
    lost = np.load(tmp_path / "graph" / "neighbors.npy")
    assert np.array_equal(lost, undisturbed(12_000, settings).neighbors)


def wait_for_tasks(work: Path, stage, num_tasks, driver):
    deadline = time.monotonic() + 240  # a busy machine may need three starts of Ray
    while time.monotonic() < deadline and driver.poll() is None:
        found = [path for build in work.glob("build-*") for path in build.glob(f"{stage}/*.npy")]
        if len(found) >= num_tasks:
            return found
        time.sleep(0.01)
    raise AssertionError("the driver ended or hung before it was killed")
