"""A search over trainings: bad ones are stopped in the middle, and nothing is done twice."""

import time

import ray
from ray.util import placement_group_table

from egra_dist.config import load_config
from egra_dist.tracking.client import open_client
from tests.small_sweep import NUM_EPOCHS, RATE


def test_all_trials_are_over_and_the_last_is_stopped_in_the_middle(swept):
    _, record, _ = swept
    assert [trial.status for trial in record.trials][::2] == ["finished", "stopped"]
    assert record.trials[0].epoch == NUM_EPOCHS
    assert record.trials[2].epoch < NUM_EPOCHS
    for trial in record.trials:
        epochs, scores = zip(*trial.history, strict=True)
        assert len(epochs) > 1 or trial.status == "stopped"
        assert sorted(set(epochs)) == list(epochs)
        assert sorted(scores) == list(scores)


def test_a_stopped_trial_gives_back_what_it_held(swept):
    out, _, _ = swept
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert {group["state"] for group in placement_group_table().values()} <= {"REMOVED"}
    assert list(out.glob("artifacts/.train-*.partial/checkpoints/state.json"))


def test_the_best_settings_are_a_configuration_that_trains_nothing_anew(swept):
    out, record, _ = swept
    assert record.best is record.trials[0]
    best = load_config(out / "best.yaml")
    assert best.train.optimizer.learning_rate == 0.01
    assert best.train.alignment.ramp_steps == 100
    assert load_config(out / "trials" / "0000" / "config.yaml").train == best.train


def test_mlflow_has_the_trials_below_the_search(swept):
    out, record, _ = swept
    client = open_client(f"sqlite:///{out}/mlflow.db")
    experiment = client.get_experiment_by_name("egra").experiment_id
    runs = {run.info.run_id: run for run in client.search_runs([experiment])}
    (sweep,) = (run for run in runs.values() if run.info.run_name == "out")
    below = {
        run.info.run_name: run
        for run in runs.values()
        if run.data.tags.get("mlflow.parentRunId") == sweep.info.run_id
    }
    assert set(below) == {"shared stages", "trial 0000", "trial 0001", "trial 0002"}
    for trial in record.trials:
        run = below[f"trial {trial.name}"]
        assert float(run.data.params[RATE]) == trial.settings[RATE]
        assert run.data.metrics["best/valid/recall_at_20"] == trial.score
        assert run.data.tags["trial"] == trial.status
        assert {"alignment/lambda", "valid/recall_at_20"} <= run.data.metrics.keys()
        assert run.info.status == "FINISHED"
    assert sweep.data.metrics["best/valid/recall_at_20"] == record.best.score
    assert not [name for run in runs.values() for name in run.data.metrics if "test" in name]


def test_the_same_command_again_does_nothing(swept):
    out, record, run = swept

    def files():
        return {path: path.stat().st_mtime_ns for path in out.glob("t*/**/*") if path.is_file()}

    before = files()
    assert run().trials == record.trials
    assert files() == before
