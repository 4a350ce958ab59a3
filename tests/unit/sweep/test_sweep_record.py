import csv
import json

import pytest

from egra_dist.config import load_config, parse_config
from egra_dist.errors import UserError
from egra_dist.sweep.base import changed
from egra_dist.sweep.record import SweepRecord

IDENTITY = {"space": {"train.batch_size": {"grid": [1, 2, 3]}}, "seed": 0}
SETTINGS = [{"train.batch_size": size} for size in (1, 2, 3)]


@pytest.fixture
def record(tmp_path):
    """A finished trial, one that was stopped although its score was higher, one interrupted."""
    record = SweepRecord.open(tmp_path, IDENTITY, SETTINGS)
    ends = (("finished", 0.1), ("stopped", 0.2), ("running", 0.05))
    for trial, (status, score) in zip(record.trials, ends, strict=True):
        trial.report(1, score / 2)
        trial.report(4, score)
        trial.report(4, 99)
        trial.status = status
    record.save()
    return record


def test_what_is_over_is_not_run_again(record):
    again = SweepRecord.open(record.folder, IDENTITY, SETTINGS)
    assert again.trials == record.trials
    assert [trial.number for trial in again.remaining] == [2]
    assert again.trials[2].history == [(1, 0.025), (4, 0.05)]


def test_more_trials_are_added_and_fewer_forget_none_that_is_over(record):
    more = SweepRecord.open(record.folder, IDENTITY, [*SETTINGS, {"train.batch_size": 4}])
    assert [trial.number for trial in more.remaining] == [2, 3]
    fewer = SweepRecord.open(record.folder, IDENTITY, SETTINGS[:1])
    assert [trial.status for trial in fewer.trials] == ["finished", "stopped"]


def test_the_best_is_one_that_finished(record):
    assert [trial.number for trial in record.ranking] == [0, 1, 2]
    assert record.best is record.trials[0]


def test_another_search_in_the_folder_is_refused_with_the_difference(record):
    other = {"space": {"train.batch_size": {"grid": [1, 2]}}, "seed": 0}
    with pytest.raises(UserError, match=r"space.train.batch_size.grid was \[1, 2, 3\], now it is"):
        SweepRecord.open(record.folder, other, SETTINGS)
    with pytest.raises(UserError, match="seed was 0, now it is not set"):
        SweepRecord.open(record.folder, {"space": IDENTITY["space"]}, SETTINGS)
    assert json.loads((record.folder / "trials.json").read_text())["search"] == IDENTITY


def test_a_record_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "trials.json").write_text("{half")
    with pytest.raises(UserError, match=r"trials\.json: not a readable record"):
        SweepRecord.open(tmp_path, IDENTITY, SETTINGS)


def test_the_table(record):
    rows = list(csv.DictReader((record.folder / "trials.csv").open()))
    assert [row["train.batch_size"] for row in rows] == ["1", "2", "3"]
    assert rows[1] == {
        "trial": "1", "status": "stopped", "epoch": "4", "score": "0.2", "train.batch_size": "2",
    }  # fmt: skip


def test_the_best_settings_are_a_configuration(record):
    given = parse_config({"item_graph": {"beta": 0.5}, "cluster": {"num_workers": 2}})
    best = changed(given, record.trials[0].settings)
    path = record.write_best(best, "recall_at_20")
    assert load_config(path) == best.model_copy(update={"cluster": load_config(None).cluster})
    text = path.read_text()
    assert text.startswith("# The best of 3 trials (1 finished, 1 stopped early):\n")
    assert "recall_at_20 = 0.10000 on the validation split, trial 0." in text
    assert text.endswith("item_graph:\n  beta: 0.5\ntrain:\n  batch_size: 1\n")


def test_without_a_finished_trial_there_is_no_best(tmp_path):
    record = SweepRecord.open(tmp_path, IDENTITY, SETTINGS)
    assert record.best is None
    assert record.write_best(parse_config({}), "recall_at_20") is None
