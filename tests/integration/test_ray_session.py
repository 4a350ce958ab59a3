"""A Ray session on this machine, started, used and gone."""

import ipaddress
import os
import subprocess
import sys

import psutil

from egra_dist.cluster.progress import Progress, ProgressBoard
from egra_dist.cluster.resources import worker_resources
from egra_dist.config import ClusterSettings

SESSION = """
import os, sys
import ray
from egra_dist.cluster.session import ray_session
from egra_dist.config import ClusterSettings

settings = ClusterSettings(num_workers=3, environment={"MINE": "yes"})
with ray_session(settings):
    folder = ray._private.worker._global_node.get_temp_dir_path()

    @ray.remote
    def look():
        names = ("MINE", "GLOO_SOCKET_IFNAME", "RAY_AUTH_MODE", "OMP_NUM_THREADS")
        return [os.environ.get(name) for name in names]

    with ray_session(ClusterSettings()):  # the inner session uses the outer one
        print(*ray.get(look.remote()))
    print(ray.is_initialized(), int(ray.cluster_resources()["CPU"]) >= 3)
print(ray.is_initialized(), os.path.exists(folder))
"""


def test_a_session_reaches_the_workers_and_leaves_nothing(tmp_path):
    hidden = ("RAY_", "OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    done = subprocess.run(
        [sys.executable, "-c", SESSION],
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["yes lo token 1", "True True", "False False"], done.stderr
    assert done.stderr == ""
    assert not (tmp_path / ".ray").exists()


SLOW_START = """
import tempfile
import psutil, ray
from ray._private import services
from egra_dist.cluster.session import ray_session
from egra_dist.config import ClusterSettings

make, answer, folders = tempfile.mkdtemp, services.get_node, []

def mkdtemp(**options):
    folders.append(make(**options))
    return folders[-1]

def get_node(*arguments):
    if len(folders) == 1:
        raise Exception("The current node timed out during startup.")
    return answer(*arguments)

tempfile.mkdtemp, services.get_node = mkdtemp, get_node
with ray_session(ClusterSettings(num_workers=2)):
    print(ray.get(ray.remote(lambda: "works").remote()))
    processes = psutil.Process().children(recursive=True)
    commands = " ".join(part for process in processes for part in process.cmdline())
    print(*(folder in commands for folder in folders))
"""


def test_a_start_that_took_too_long_leaves_nothing_and_a_second_one_works():
    done = subprocess.run(
        [sys.executable, "-c", SLOW_START], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines() == ["works", "False True"], done.stderr


def test_workers_asked_for_fit_into_the_session(local_ray):
    assert worker_resources(ClusterSettings(num_workers=4)).cpus == 1


def test_a_task_tells_the_driver_how_far_it_is(local_ray):
    import ray

    @ray.remote
    def work(board):
        for done in range(1, 6):
            board.update(done, 5, loss=1 / done)
        return board.latest()  # answered after what was sent before it

    board = ProgressBoard()
    assert board.latest() is None
    assert ray.get(work.remote(board)) == Progress(5, 5, {"loss": 0.2})
    assert board.latest() == Progress(5, 5, {"loss": 0.2})


def test_a_session_listens_on_the_loopback_alone(local_ray):
    ours = {process.pid for process in psutil.Process().children(recursive=True)} | {os.getpid()}
    listening = [
        connection.laddr.ip
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.pid in ours
    ]
    assert listening
    assert all(ipaddress.ip_address(ip.removeprefix("::ffff:")).is_loopback for ip in listening)
