"""A Ray cluster of several raylets on this machine, started as its users start it.

Every process of it carries a mark in its environment, so that what is left over can be found, and
nothing but this cluster is ever ended.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

REPOSITORY = Path(__file__).parents[1]
MARK = "EGRA_TEST_CLUSTER"
START_SECONDS = 300
_ATTEMPTS = 3
_HEAD_PORTS = (
    "--port",
    "--dashboard-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--ray-client-server-port",
)
_NODE_PORTS = ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port")
# A dead node is noticed within seconds instead of half a minute.
_QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}


class NodeEndedError(Exception):
    """A node is gone that nobody has killed."""


def free_ports(count: int) -> list[str]:
    """Ports of the loopback that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


class LocalCluster:
    """A head and further nodes, each a raylet of its own; use as a context manager.

    Args:
        cpus_of_head: CPUs that the head offers.
        cpus_of_nodes: CPUs that each further node offers.
        quick: Whether dead nodes are noticed within seconds.

    Attributes:
        address: HOST:PORT of the cluster.
        url: Where its job server listens.
        folder: Where it keeps its files.
        orphans: Processes that outlived a killed head, and had to be killed.
    """

    def __init__(
        self, cpus_of_head: int = 0, cpus_of_nodes: tuple[int, ...] = (), quick: bool = True
    ) -> None:
        self.mark = uuid.uuid4().hex
        self._cpus = cpus_of_head, cpus_of_nodes
        self._temporary = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        self.folder = self._temporary.name
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        ours = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", MARK: self.mark}
        ours["RAY_worker_niceness"] = "0"  # else they wait for whatever other tests compute
        home = Path(self.folder) / "home"
        home.mkdir()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        # A local Ray in this process has set variables that forbid further nodes.
        inherited = {name: value for name, value in os.environ.items() if not _is_of_ray(name)}
        self.environment = {**inherited, **ours, "HOME": str(home), "PATH": path}
        if quick:
            self.environment |= _QUICK
        self.nodes: list[subprocess.Popen] = []
        self.orphans: list[str] = []
        self._num_folders = 0

    def __enter__(self) -> Self:
        try:
            self.start_head()
            for count, cpus in enumerate(self._cpus[1], start=2):
                self.join(cpus, count)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start_head(self) -> None:
        """Starts a head; after the death of an earlier one a new, empty cluster begins.

        Again if it ends, as one does that a busy machine kept from coming up in half a minute.
        """
        for _ in range(_ATTEMPTS):
            self._launch_head()
            with suppress(NodeEndedError):
                self._wait_for_head()
                return
            self.end_left_over(30)
        raise NodeEndedError(f"the head ended at once, {_ATTEMPTS} times")

    def _launch_head(self) -> None:
        ports = free_ports(len(_HEAD_PORTS))
        self.address, self.url = f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        self._num_folders += 1
        folder = f"{self.folder}/{self._num_folders}"
        options = ["--head", "--temp-dir", folder, "--num-cpus", str(self._cpus[0])]
        options += [part for pair in zip(_HEAD_PORTS, ports, strict=True) for part in pair]
        self.head = self._start(*options)

    def add_node(self, cpus: int) -> subprocess.Popen:
        """Starts a node that joins the head."""
        ports = free_ports(len(_NODE_PORTS))
        self._num_folders += 1
        # Not the head's: a node that goes would delete the code that jobs run elsewhere.
        folder = f"{self.folder}/{self._num_folders}"
        options = ["--address", self.address, "--num-cpus", str(cpus), "--temp-dir", folder]
        options += ["--object-store-memory", str(100 << 20)]
        options += [part for pair in zip(_NODE_PORTS, ports, strict=True) for part in pair]
        self.nodes.append(self._start(*options))
        return self.nodes[-1]

    def join(self, cpus: int, count: int) -> None:
        """Adds a node; again if it ends, as one does that a busy machine kept from answering."""
        for _ in range(_ATTEMPTS):
            node = self.add_node(cpus)
            with suppress(NodeEndedError):
                self.wait_for_nodes(count)
                return
            self.nodes.remove(node)
        raise NodeEndedError(f"a node ended at once, {_ATTEMPTS} times")

    def kill_node(self, node: subprocess.Popen) -> None:
        """Kills a raylet without a word; its workers see it and go."""
        kill(*of_kind(node, "raylet"), *of_kind(node, ""))
        node.wait()
        self.nodes.remove(node)

    def kill_head(self) -> None:
        """Kills head and nodes without a word, as when the machines are lost."""
        for node in list(self.nodes):
            self.kill_node(node)
        kill(*of_kind(self.head, "gcs_server"), *of_kind(self.head, ""))
        self.head.wait()
        self.orphans += self.end_left_over(30)

    def wait_for_nodes(self, count: int) -> None:
        """Waits until so many nodes are alive.

        Raises:
            NodeEndedError: If one of them ends instead.
        """

        def alive() -> bool:
            if any(node.poll() is not None for node in self.nodes):
                raise NodeEndedError("a node ended")
            return self._num_alive() == count

        wait_for(alive, START_SECONDS, f"{count} nodes")

    def _num_alive(self) -> int:
        with urllib.request.urlopen(f"{self.url}/api/v0/nodes", timeout=10) as answer:
            nodes = json.load(answer)["data"]["result"]["result"]
        return sum(node["state"] == "ALIVE" for node in nodes)

    def left_over(self) -> list[psutil.Process]:
        """Processes of this cluster and its jobs that live."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def end_left_over(self, seconds: float) -> list[str]:
        """Waits for the processes of a dead cluster to go; kills, and names, those that stay."""
        with suppress(TimeoutError):
            wait_for(lambda: not self.left_over(), seconds, "the end of all processes")
        left = self.left_over()
        names = [command_line(process)[:120] for process in left]
        kill(*left)
        return names

    def stop(self) -> None:
        """Ends the cluster at once; nothing of it is left."""
        for process in (*self.nodes, self.head):
            process.kill()
            process.wait()
        while left := self.left_over():
            kill(*left)
            time.sleep(0.2)
        self._log.close()
        self._temporary.cleanup()

    def submit_command(self, *arguments: str) -> list[str]:
        """The command that submits to this cluster."""
        command = [sys.executable, "-m", "egra_dist", "submit", *arguments]
        return [*command, "--address", self.url]

    def _owns(self, process: psutil.Process) -> bool:
        """By the mark; Ray's workers overwrite it with their title, but keep their logs open."""
        with suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            if process.environ().get(MARK) == self.mark:
                return True
            files = Path(f"/proc/{process.pid}/fd").iterdir()
            return any(str(file.readlink()).startswith(self.folder) for file in files)
        return False

    def _start(self, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options]
        command += ["--node-ip-address", "127.0.0.1", "--disable-usage-stats"]
        return subprocess.Popen(
            command,
            env=self.environment,
            cwd=REPOSITORY,
            stdout=self._log,
            stderr=self._log,
        )

    def _wait_for_head(self) -> None:
        """Until it is a node of its own: its job server answers before, and may be alone."""

        def is_alive() -> bool:
            if self.head.poll() is not None:
                raise NodeEndedError("the head ended")
            return self._num_alive() == 1

        wait_for(is_alive, START_SECONDS, f"a head at {self.url}")


def _is_of_ray(name: str) -> bool:
    return name.startswith("RAY_") and not name.startswith("RAY_TRAIN_")


def of_kind(parent: subprocess.Popen, name: str) -> list[psutil.Process]:
    """Descendants of a process whose command line names something."""
    with suppress(psutil.NoSuchProcess):
        found = psutil.Process(parent.pid).children(recursive=True)
        return [process for process in found if name in command_line(process)]
    return []


def kill(*processes: psutil.Process) -> None:
    """SIGKILL, in order."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def command_line(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def wait_for(condition: Callable[[], object], seconds: float, what: str = "a condition") -> None:
    """Waits until a condition holds; what cannot be asked yet does not hold yet."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError, KeyError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.2)
