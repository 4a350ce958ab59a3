"""One training through everything that may happen to a worker: it ends by itself each time."""

import json
import signal
import threading
import time
from dataclasses import replace

import psutil
import pytest
from test_training_ranks import make_task

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.config import ClusterSettings
from egra_dist.errors import UserError
from egra_dist.train import group
from egra_dist.train.launch import _trainer, launch
from egra_dist.train.task import Survival
from egra_dist.train.worker import train_worker

NUM_EPOCHS = 60
TWO_WORKERS = ClusterSettings(num_workers=2, cpus_per_worker=1, max_failures=-1)


def epochs_done(folder):
    path = folder / "checkpoints" / "state.json"
    return json.loads(path.read_text())["training"]["epoch"] if path.exists() else 0


def workers():
    """This test's Ray Train workers."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in process.name() + " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for_epochs(folder, count):
    """Waits until so many more epochs are done; returns how many are done then."""
    wanted = epochs_done(folder) + count
    while epochs_done(folder) < wanted:
        time.sleep(0.05)
    return epochs_done(folder)


def disturb(folder, happened):
    """Freezes a worker, then tells one that it is about to be taken away."""
    for number in (signal.SIGSTOP, signal.SIGTERM):
        done = wait_for_epochs(folder, 2)
        told = workers()[-1]
        told.send_signal(number)
        happened[number] = done
        while told.is_running() and told.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.05)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("failures")
    catalog = synthesize(
        SynthSettings(num_items=200, num_users=300, num_interactions=3000), folder / "catalog"
    )
    task = make_task(catalog, folder, f"train.max_epochs={NUM_EPOCHS}", "train.patience=999")
    return replace(task, survival=Survival(stuck_minutes=0.2))


def test_processes_without_use_are_not_started(local_ray, small, monkeypatch):
    def names():
        callbacks = _trainer(train_worker, small, TWO_WORKERS)._create_default_callbacks()
        return {type(callback).__name__ for callback in callbacks}

    cleaner = "PlacementGroupCleanerCallback"
    assert "BackendSetupCallback" in names()
    assert not {"DatasetsCallback", cleaner} & names()
    monkeypatch.setattr(group, "get_dashboard_url", lambda: "10.0.0.1:8265")
    assert cleaner in names()


def test_training_survives_frozen_killed_and_preempted_workers(local_ray, small, tmp_path, caplog):
    task = replace(small, folder=tmp_path / "training")
    happened: dict = {}
    thread = threading.Thread(target=disturb, args=(task.folder, happened))
    thread.start()
    with caplog.at_level("WARNING"):
        launch(train_worker, task, TWO_WORKERS)
    thread.join()
    assert len(happened) == 2 and max(happened.values()) < NUM_EPOCHS
    assert json.loads((task.folder / "training.json").read_text())["epoch"] == NUM_EPOCHS
    assert set(json.loads(task.evaluation_file.read_text())) == {"valid", "test"}
    stacks = "".join(path.read_text() for path in task.folder.glob("stuck-rank-*.txt"))
    assert "no step for 12 s after step" in stacks and "in train" in stacks
    assert any("no step for 12 s after step" in record.message for record in caplog.records)


def test_mistake_of_the_user_is_not_tried_again(local_ray, small, tmp_path):
    folder = tmp_path / "training" / "checkpoints"
    folder.mkdir(parents=True)
    identity = {"made_from": {"catalog": "another"}, "shapes": {}, "run_id": None}
    entry = {"name": "step-1", "training": {}}
    content = {"identity": identity, "kept": [entry], "best": entry}
    (folder / "state.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="catalog is 'another' there"):
        launch(train_worker, replace(small, folder=folder.parent), ClusterSettings())
    assert len(list((tmp_path / ".ray").glob("train-*"))) == 1
