"""What a run folder that is used again goes on with."""

import logging
import re
import shutil

import pytest

from egra_dist.errors import UserError
from egra_dist.tracking.client import default_uri
from egra_dist.tracking.reader import Records
from egra_dist.tracking.recorder import MetricRecorder
from egra_dist.tracking.sync import sync
from tests.experiments import NOBODY, open_experiment, recorded


def test_a_resumed_run_goes_on_in_the_same_mlflow_runs(run_folder):
    with pytest.raises(RuntimeError), open_experiment(run_folder, params={"a": 1}) as first:
        ids = (first.run_id, first.child("train", {"b": 1}))
        first.log_metrics({"loss": 1.0}, step=3, run_id=ids[1])
        raise RuntimeError
    with open_experiment(run_folder, params={"a": 2, "c": 3}) as second:
        assert (second.run_id, second.child("train")) == ids
        second.log_metrics({"loss": 9.0}, step=3, run_id=ids[1])
        second.log_metrics({"loss": 0.5}, step=4, run_id=ids[1])
    parent, _ = recorded(run_folder)
    assert (parent.run_id, parent.status) == (ids[0], "FINISHED")
    assert parent.params == {"a": "1", "c": "3"}  # MLflow's parameters cannot change.
    assert Records(default_uri(run_folder)).series(ids[1], "loss") == [(3, 1.0), (4, 0.5)]


def test_a_run_about_something_else_is_another_one_in_mlflow(run_folder, caplog):
    caplog.set_level(logging.INFO, "egra_dist")

    def record(identity, rate):
        params = {"rate": rate}
        with open_experiment(run_folder, params=params, identity=identity) as experiment:
            run_id = experiment.child("train", params)
            experiment.log_metrics({"loss": rate}, step=3, run_id=run_id)
            return experiment.run_id, run_id

    first, again, other = record("a", 1.0), record("a", 1.0), record("b", 2.0)
    assert first == again
    assert not set(first) & set(other)
    assert "had other settings or data before: a new run in MLflow" in caplog.text
    records = Records(default_uri(run_folder))
    assert records.series(first[1], "loss") == [(3, 1.0)]
    assert records.series(other[1], "loss") == [(3, 2.0)]
    params = {run.run_id: run.params for run in records.runs("egra")}
    assert params[first[0]] == {"rate": "1.0"}
    assert params[other[0]] == {"rate": "2.0"}


def test_a_stage_that_is_made_anew_has_a_run_of_its_own(run_folder):
    """Below the same parent: other settings of a model beside the one that the run is about."""

    def record(digest, loss):
        with open_experiment(run_folder, identity="a") as experiment:
            with experiment.stage("lightgcn", {"loss": loss}, {"digest": digest}) as run_id:
                experiment.log_metrics({"loss": loss}, step=3, run_id=run_id)
            return run_id

    first, again, other = record("1", 0.5), record("1", 0.5), record("2", 0.25)
    assert first == again != other
    _, children = recorded(run_folder)
    assert children["lightgcn"].run_id == other, "the newest counts"
    assert {first, other} <= {run.run_id for run in Records(default_uri(run_folder)).runs("egra")}
    assert children["lightgcn"].params == {"loss": "0.25"}
    assert children["lightgcn"].metrics == {"loss": 0.25}


def test_one_process_at_a_time(run_folder):
    with open_experiment(run_folder):
        with pytest.raises(UserError, match=re.escape(f"{run_folder}: another process")):
            open_experiment(run_folder)
        with pytest.raises(UserError, match=re.escape(f"{run_folder}: another process")):
            sync(run_folder)


def test_another_tracking_uri_starts_a_new_record(run_folder, uri):
    with open_experiment(run_folder) as experiment:
        first = experiment.run_id
        experiment.log_metrics({"loss": 1.0})
    with open_experiment(run_folder, uri) as experiment:
        assert experiment.run_id != first
        assert experiment.close(timeout=60)
    assert recorded(run_folder, uri)[0].status == "FINISHED"


@pytest.mark.parametrize("content", ["", "[]", '{"uri": null}', '{"uri": 1, "runs": {"": {}}}'])
def test_an_unreadable_ledger_is_named(run_folder, content):
    (run_folder / "mlflow.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(f"{run_folder}/mlflow.json: not a readable")):
        open_experiment(run_folder)


def test_a_moved_run_folder_is_synced_where_it_is(run_folder, tmp_path):
    with open_experiment(run_folder) as experiment:
        run_id = experiment.child("train")
    moved = tmp_path / "moved"
    shutil.move(run_folder, moved)
    recorder = MetricRecorder(NOBODY, run_id, moved / "spool")
    recorder.log(1, {"loss": 0.5})
    recorder.close(timeout=5)
    sync(moved)
    assert recorded(moved)[1]["train"].metrics == {"loss": 0.5}
