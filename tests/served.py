"""``mlflow models serve`` as a subprocess, and a client of it."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JSON = "application/json"


@dataclass
class Client:
    """One connection to the server."""

    connection: http.client.HTTPConnection

    def post(self, body: bytes | Any, content_type: str | None = JSON) -> tuple[int, str]:
        """Status and text of an answer; what is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": content_type} if content_type else {}
        self.connection.request("POST", "/invocations", data, headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read().decode()

    def ask(self, *rows: dict, **params: int) -> list[dict]:
        """The predictions for rows."""
        status, text = self.post({"dataframe_records": rows, "params": params})
        assert status == 200, text
        return json.loads(text)["predictions"]


@contextmanager
def serving(model: Path, log: Path) -> Iterator[Client]:
    """Serves a model folder on this machine alone."""
    port = _free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model)]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)  # the model has what it needs
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "--workers", "1"],
            cwd=log.parent,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_until_up(server, port, log)
            yield Client(http.client.HTTPConnection("127.0.0.1", port, timeout=60))
        finally:
            server.terminate()
            server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(server: subprocess.Popen, port: int, log: Path, seconds: float = 300) -> None:
    stop = time.monotonic() + seconds
    while time.monotonic() < stop and server.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/ping")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the server did not come up: {log.read_text()}")
