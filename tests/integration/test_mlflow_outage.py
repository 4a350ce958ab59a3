"""A run whose MLflow server is stopped for the middle third of its training."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.config import load_config
from egra_dist.pipeline import run_pipeline
from egra_dist.tracking.reader import Records
from tests.clusters import wait_for
from tests.disturbance import last_step
from tests.mlflow_page import mlflow_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

NUM_STEPS = 450


def start(pool: ThreadPoolExecutor, folder: Path, uri: str) -> Future:
    """A pipeline that records every step to a server."""
    small = SynthSettings(num_items=150, num_users=200, num_interactions=2000)
    catalog = synthesize(small, folder / "catalog")
    settings = ["item_graph.source=raw", f"train.max_steps={NUM_STEPS}", "train.max_epochs=10000"]
    settings += ["train.patience=10000", "train.evaluate_every=50", "train.batch_size=512"]
    settings += [f"tracking.uri={uri}", "tracking.log_every_steps=1", "cluster.cpus_per_worker=1"]
    return pool.submit(
        run_pipeline, load_config(None, settings), catalog, folder / "run", "evaluate"
    )


def the_worker() -> psutil.Process:
    """The process that trains."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "RayTrainWorker" in process.name() + " ".join(process.cmdline()):
                return process
    raise AssertionError("nobody trains")


def check(records: Records) -> None:
    """One run, all of it finished, every step once."""
    runs = records.runs("egra")
    assert {run.status for run in runs} == {"FINISHED"}
    (parent,) = (run for run in runs if run.parent_id is None)
    children = records.children(parent)
    assert len(children) == len(runs) - 1
    for name in ("train/loss_total", "alignment/lambda"):
        steps = [value.step for value in records.series(children["train"].run_id, name)]
        assert steps == list(range(NUM_STEPS)), name


def test_every_point_is_there_once_though_the_server_was_away(local_ray, tmp_path, free_port):
    out = tmp_path / "run"
    with ThreadPoolExecutor() as pool:
        with mlflow_server(tmp_path, free_port) as uri:
            run = start(pool, tmp_path, uri)
            wait_for(lambda: run.done() or last_step(out) >= NUM_STEPS // 3, 200)
        wait_for(lambda: run.done() or last_step(out) >= NUM_STEPS * 2 // 3, 200)
        assert not run.done()
        worker = the_worker()
        worker.suspend()  # the server takes longer to start than the last third takes
        assert last_step(out) < NUM_STEPS - 1
        with mlflow_server(tmp_path, free_port):
            worker.resume()
            assert run.result(timeout=200)["models"]
            check(Records(uri))
