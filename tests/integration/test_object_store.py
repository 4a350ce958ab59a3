"""A run that is stopped, loses its machine, and goes on from an object store alone."""

import json
import os
import shutil
import signal
import threading
import time

import pytest

from egra_dist.catalog.remote import open_catalog
from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.config import load_config
from egra_dist.errors import EXIT_STOPPED
from egra_dist.pipeline import run_pipeline
from egra_dist.storage import Storage
from egra_dist.tracking.client import open_client
from tests.object_store import object_store

pytestmark = pytest.mark.slow

NUM_EPOCHS = 40
SETTINGS = [
    "train.model.name=lightgcn",
    "item_graph.source=none",
    f"train.max_epochs={NUM_EPOCHS}",
    "train.patience=999",
    "train.batch_size=256",
    "tracking.log_every_steps=1",
    # Room for one of the two workers: a training that waits for no more.
    "cluster.num_workers=2",
    "cluster.min_workers=1",
    "cluster.cpus_per_worker=3",
]


@pytest.fixture
def bucket():
    """URI of a path in a bucket of an object store on this machine."""
    with object_store("egra") as uri:
        yield uri


def stop_after_epochs(storage, count):
    """Tells this process to end when the object store has checkpoints."""
    while True:
        listed = storage.read("state.json") if storage else None
        if listed and json.loads(listed)["training"]["epoch"] >= count:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(0.1)


def checkpoints_of(store, folder):
    """Where the checkpoints of the training that is being made go."""
    places = folder / "artifacts.json"
    while not places.exists() or "train" not in json.loads(places.read_text()):
        time.sleep(0.1)
    name = json.loads(places.read_text())["train"].split("/")[-1]
    return store.at(f"artifacts/{name}/checkpoints")


def first_step(folder):
    """The first step that this folder's own process recorded."""
    steps = []
    for path in (folder / "spool").rglob("*"):
        if path.is_file():
            for line in path.read_text(errors="ignore").splitlines():
                if "train/loss_total" in line:
                    steps.append(json.loads(line)["step"])
    return min(steps)


def files_of(folder):
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def test_run_goes_on_from_the_object_store_alone(bucket, local_ray, tmp_path):
    made = synthesize(
        SynthSettings(num_items=200, num_users=300, num_interactions=3000), tmp_path / "made"
    )
    Storage(bucket("catalog")).push(made.path, [p for p in made.path.rglob("*") if p.is_file()])
    shutil.rmtree(made.path)
    config, store = load_config(None, SETTINGS), Storage(bucket("run"))

    def run(name):
        out = tmp_path / name
        catalog = open_catalog(bucket("catalog"), out / "catalogs")
        return out, run_pipeline(config, catalog, out, storage=store)

    def stop():
        stop_after_epochs(checkpoints_of(store, tmp_path / "first"), 3)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(SystemExit) as ended:
        run("first")
    thread.join()
    assert ended.value.code == EXIT_STOPPED
    checkpoints = checkpoints_of(store, tmp_path / "first")
    state = json.loads(checkpoints.read("state.json"))
    assert not state["training"]["is_finished"]
    assert state["kept"][-1]["name"].endswith("-of-1")
    shutil.rmtree(tmp_path / "first")

    out, metrics = run("second")
    done = state["training"]["step"]
    assert first_step(out) == done
    client = open_client(f"sqlite:///{out}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("egra").experiment_id])
    assert len([r for r in runs if r.data.tags.get("stage") == "train"]) == 1
    assert len([r for r in runs if "mlflow.parentRunId" not in r.data.tags]) == 1
    assert json.loads(store.read("metrics.json")) == metrics

    third, again = run("third")
    assert again["test"] == metrics["test"]
    assert not (third / "spool").exists() or not list((third / "spool").rglob("train*"))
    (folder,) = (third / "artifacts").glob("train-*")
    assert json.loads((folder / "training.json").read_text())["epoch"] == NUM_EPOCHS
    assert (folder / "checkpoints" / "state.json").exists()
    assert files_of(third / "export") == files_of(out / "export") != set()
