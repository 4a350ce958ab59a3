import os
import time
from pathlib import Path

import pytest

from egra_dist.artifact import partial_folder
from egra_dist.files import write_json
from egra_dist.sweep.record import SweepRecord
from egra_dist.sweep.space import SchedulerSettings
from egra_dist.sweep.trial import Outcome, TrialProcess, TrialTask, _read_state
from egra_dist.sweep.tuner import _scheduler
from egra_dist.workspace import ARTIFACTS

REPOSITORY = Path(__file__).parents[3]


def state(epoch, score):
    return {"epoch": epoch, "best_score": score, "best_epoch": epoch}


def test_scores_are_those_that_the_training_committed(tmp_path):
    artifact = tmp_path / "artifacts" / "train-1"
    assert _read_state(tmp_path) is None
    write_json(tmp_path / ARTIFACTS, {"graphs": "somewhere"})
    assert _read_state(tmp_path) is None
    write_json(tmp_path / ARTIFACTS, {"train": str(artifact)})
    assert _read_state(tmp_path) is None
    committed = partial_folder(artifact) / "checkpoints" / "state.json"
    committed.parent.mkdir(parents=True)
    write_json(committed, {"training": state(3, 0.2), "checkpoints": {}})
    assert _read_state(tmp_path) == (3, 0.2, False)
    write_json(partial_folder(artifact) / "training.json", state(5, 0.3))
    assert _read_state(tmp_path) == (3, 0.2, False)
    partial_folder(artifact).rename(artifact)
    assert _read_state(tmp_path) == (5, 0.3, True)


def task_in(folder):
    return TrialTask(str(folder), str(REPOSITORY), str(folder / "none"), str(folder / "artifacts"))


def test_a_trial_that_fails_says_why(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0")
    process = TrialProcess(task_in(tmp_path), os.environ)
    outcome = process.wait(60)
    process.stop()
    assert outcome.status == "failed"
    assert (
        outcome.reason == f"error: {tmp_path}/none: not a catalog folder (it has no manifest.json)"
    )


def test_a_trial_is_heard_of_in_time_and_ends_when_it_is_told_to(tmp_path):
    os.mkfifo(tmp_path / "config.yaml")  # its reader waits for ever
    process = TrialProcess(task_in(tmp_path), os.environ)
    started = time.monotonic()
    assert process.wait(0.5) == Outcome()
    assert time.monotonic() - started < 60
    process.stop()
    assert process.wait(0).status == "failed"


@pytest.mark.parametrize(("score", "decision"), [(0.05, "STOP"), (0.9, "CONTINUE")])
def test_new_trials_are_compared_with_those_of_earlier_starts(tmp_path, score, decision):
    record = SweepRecord.open(tmp_path, {}, [{"seed": seed} for seed in range(5)])
    for trial in record.trials[:4]:
        trial.report(2, 0.1 * (trial.number + 1))
        trial.status = "stopped"
    scheduler = _scheduler(SchedulerSettings(grace_epochs=2, reduction_factor=2), 10, record)
    new = type("Trial", (), {"trial_id": "new"})()
    scheduler.on_trial_add(None, new)
    assert scheduler.on_trial_result(None, new, {"epoch": 1, "score": score}) == "CONTINUE"
    assert scheduler.on_trial_result(None, new, {"epoch": 2, "score": score}) == decision
