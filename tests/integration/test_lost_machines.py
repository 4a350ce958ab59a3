"""One submitted run that loses a worker, a node and the head: nothing of it is lost."""

import random

import pytest

from egra_dist.catalog.synth import SynthSettings, synthesize
from tests.clusters import LocalCluster
from tests.disturbance import CHECKPOINT_STEPS, Disturbed, check_record, figures, half_written

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NUM_STEPS = 120
KILLED = ("worker", "node", "head")
SETTINGS = ["train.max_epochs=1000", f"train.max_steps={NUM_STEPS}"]
SEED = 6


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An undisturbed run and one that is disturbed at random steps, after both have finished."""
    folder = tmp_path_factory.mktemp("lost")
    small = SynthSettings(num_items=150, num_users=200, num_interactions=2000)
    catalog = synthesize(small, folder / "catalog").path
    steps = sorted(random.Random(SEED).sample(range(CHECKPOINT_STEPS, NUM_STEPS * 3 // 4), 3))
    with LocalCluster(0, (1, 1)) as cluster:
        undisturbed = Disturbed(cluster, catalog, folder / "undisturbed", SETTINGS).finish(300)
        disturbed = Disturbed(cluster, catalog, folder / "disturbed", SETTINGS)
        disturbed.submit()
        for kind, step in zip(KILLED, steps, strict=True):
            disturbed.wait_for_step(max(step, disturbed.step() + 1))
            disturbed.disturb(kind)
        assert disturbed.wait(300) == 0, disturbed.said
    return undisturbed, disturbed


def test_it_finds_what_an_undisturbed_run_finds_bit_for_bit(runs):
    undisturbed, disturbed = runs
    assert [kill.kind for kill in disturbed.kills] == list(KILLED)
    assert figures(disturbed.out) == figures(undisturbed.out)


def test_it_loses_no_more_than_the_steps_since_the_last_checkpoint(runs):
    _, disturbed = runs
    for kill in disturbed.kills:
        assert kill.at - kill.committed <= CHECKPOINT_STEPS + 2
        assert not kill.lost, kill


def test_it_is_recorded_as_one_run_with_every_step_once(runs):
    _, disturbed = runs
    check_record(disturbed.out, NUM_STEPS)


def test_it_leaves_no_process_and_nothing_half_written(runs):
    _, disturbed = runs
    assert disturbed.cluster.orphans == []
    assert disturbed.cluster.left_over() == []
    assert half_written(disturbed.out) == []
