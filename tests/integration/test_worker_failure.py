"""A worker that is killed is started again, and the training goes on from its last checkpoint."""

import json
import threading
import time
from dataclasses import replace

import psutil
from test_training_ranks import make_task

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.config import ClusterSettings
from egra_dist.train.launch import launch
from egra_dist.train.worker import train_worker

NUM_EPOCHS = 40


def epochs_done(folder):
    path = folder / "checkpoints" / "state.json"
    return json.loads(path.read_text())["training"]["epoch"] if path.exists() else 0


def kill_one_worker_after_an_epoch(folder, killed):
    """Waits for the first checkpoints, then kills one of this test's Ray workers."""
    while epochs_done(folder) < 2:
        time.sleep(0.05)
    for process in psutil.Process().children(recursive=True):
        if "RayTrainWorker" in process.name() or "RayTrainWorker" in " ".join(process.cmdline()):
            killed.append((process.pid, epochs_done(folder)))
            process.kill()
            return


def test_killed_worker_costs_no_more_than_the_epoch_it_was_in(local_ray, tmp_path):
    catalog = synthesize(
        SynthSettings(num_items=200, num_users=300, num_interactions=3000), tmp_path / "catalog"
    )
    task = replace(
        make_task(catalog, tmp_path, f"train.max_epochs={NUM_EPOCHS}", "train.patience=99"),
        folder=tmp_path / "killed",
    )
    killed: list = []
    killer = threading.Thread(target=kill_one_worker_after_an_epoch, args=(task.folder, killed))
    killer.start()
    launch(train_worker, task, ClusterSettings(num_workers=2, cpus_per_worker=1))
    killer.join()
    assert killed and killed[0][1] < NUM_EPOCHS
    assert json.loads((task.folder / "training.json").read_text())["epoch"] == NUM_EPOCHS
    assert set(json.loads(task.evaluation_file.read_text())) == {"valid", "test"}
