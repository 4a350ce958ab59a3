"""A node dies for good: the training goes on with fewer workers, and finds as good a model."""

import json

import pytest

from egra_dist.catalog.synth import SynthSettings, synthesize
from tests.clusters import LocalCluster
from tests.disturbance import Disturbed, half_written

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CATALOG = SynthSettings(num_items=1500, num_users=3000, num_interactions=40_000)
NUM_STEPS = 240
KILLED_AT = NUM_STEPS // 3
SETTINGS = [
    "train.max_epochs=1000",
    f"train.max_steps={NUM_STEPS}",
    "train.evaluate_every=1",
    "train.optimizer.learning_rate=0.01",
    "cluster.min_workers=1",
]


def training_of(run):
    return next((run.out / "artifacts").glob("train-*"))


def recall(run):
    """Validation Recall@20 of the best state."""
    path = next(training_of(run).glob("evaluation-*.json"))
    return json.loads(path.read_text())["valid"]["metrics"]["recall_at_20"]


def num_workers(run):
    """Workers that the last checkpoint was written by."""
    state = json.loads((training_of(run) / "checkpoints" / "state.json").read_text())
    return int(state["kept"][-1]["name"].split("-of-")[-1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An undisturbed run with two workers, and one that loses a node, after both have finished."""
    folder = tmp_path_factory.mktemp("fewer")
    catalog = synthesize(CATALOG, folder / "catalog").path
    with LocalCluster(0, (1, 1)) as cluster:
        undisturbed = Disturbed(cluster, catalog, folder / "undisturbed", SETTINGS).finish(400)
        disturbed = Disturbed(cluster, catalog, folder / "disturbed", SETTINGS)
        disturbed.submit()
        disturbed.wait_for_step(KILLED_AT)
        cluster.kill_node(cluster.nodes[-1])
        assert disturbed.wait(400) == 0, disturbed.said
        resumed = disturbed.resumed()
    return undisturbed, disturbed, resumed


def test_it_goes_on_with_one_worker_of_two(runs):
    undisturbed, disturbed, resumed = runs
    assert num_workers(undisturbed) == 2
    assert num_workers(disturbed) == 1
    assert any(step >= KILLED_AT - 10 for step in resumed), resumed
    assert half_written(disturbed.out) == []


def test_its_validation_recall_is_that_of_the_undisturbed_run(runs):
    undisturbed, disturbed, _ = runs
    assert recall(undisturbed) > 0.05  # twenty random items of 1500 find .013
    assert recall(disturbed) == pytest.approx(recall(undisturbed), abs=0.002)
