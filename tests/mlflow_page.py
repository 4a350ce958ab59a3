"""MLflow's own server and page, as a user has them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.browser import Page

_ROWS = "[...document.querySelectorAll('[role=row]')]"


@contextmanager
def mlflow_server(
    folder: Path, port: int, *options: str, store: str = "", environment: Mapping[str, str] = {}
) -> Iterator[str]:
    """A server with one worker, which ends with the block.

    Args:
        folder: Where it works, and keeps its database and artifacts.
        port: A free port.
        options: More of its command line.
        store: URI of the database; one of its own when not given.
        environment: More variables.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", store or f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts"), *options]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    variables = {**os.environ, **quiet, **environment}
    with (folder / "server.log").open("a") as log:
        server = subprocess.Popen(command, env=variables, stdout=log, stderr=log, cwd=folder)
        try:
            _wait_until_up(f"http://127.0.0.1:{port}/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait_until_up(url: str, server: subprocess.Popen) -> None:
    while True:
        assert server.poll() is None, "the server ended"
        try:
            urlopen(url, timeout=1).close()
        except (URLError, OSError):
            time.sleep(0.2)
        else:
            return


def open_runs(page: Page, uri: str, condition: str = "", view: str = "TABLE") -> None:
    """Opens the runs of the first experiment that was made, as MLflow lists them."""
    query = {
        "searchFilter": condition,
        "orderByKey": "attributes.start_time",
        "orderByAsc": "true",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": "W10=",
        "compareRunsMode": view,
        "workflowType": "machine_learning",
    }
    page.goto(f"{uri}/#/experiments/1/runs?{urlencode(query)}")
    page.wait_for_text("matching run")


def expand(page: Page, name: str) -> None:
    """Shows the runs below a run."""
    page.click(f"{_row(name)}?.querySelector('button')")


def select(page: Page, name: str) -> None:
    """Ticks a run."""
    page.click(f"{_row(name)}?.querySelector('.ag-checkbox-input')")


def _row(name: str) -> str:
    """Finds the row of a run in the table of runs."""
    lines = "r.innerText.split('\\n').map(line => line.trim())"
    return f"{_ROWS}.find(r => {lines}.includes({json.dumps(name)}))"
