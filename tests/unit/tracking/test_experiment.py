"""One parent run, a child per stage, found again, whatever happens in between."""

import logging
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import typer
from typer.testing import CliRunner

from egra_dist.cli import track
from egra_dist.errors import EXIT_STOPPED, UserError
from egra_dist.tracking.client import default_uri, open_client
from egra_dist.tracking.experiment import Experiment
from egra_dist.tracking.ledger import Ledger
from egra_dist.tracking.mirror import PARENT_TAG, Mirror
from egra_dist.tracking.reader import Records
from egra_dist.tracking.recorder import MetricRecorder
from egra_dist.tracking.sync import sync

NOBODY = "http://127.0.0.1:9"  # The discard port: refused at once.


@pytest.fixture(autouse=True)
def no_tracking_uri(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def open_experiment(run_folder, uri=None, **options):
    return Experiment.open(uri, run_folder, "egra", **options)


def recorded(run_folder, uri=None):
    """The parent and its children by stage; fails when there is another parent."""
    records = Records(uri or default_uri(run_folder))
    (parent,) = (run for run in records.runs("egra") if run.parent_id is None)
    return parent, records.children(parent)


def artifact(run_folder, run_id, path):
    return (run_folder / "mlartifacts" / run_id / "artifacts" / path).read_text()


def test_a_run_with_a_stage_is_recorded_whole(run_folder):
    settings = {"train": {"batch_size": 2048, "model": {"name": "egra", "modalities": None}}}
    with open_experiment(
        run_folder, run_name="first", params=settings, tags={"data.digest": "abc"}
    ) as experiment:
        with experiment.stage("train", {"lr": 1e-3, "cutoffs": [5, 10]}) as run_id:
            recorder = MetricRecorder(experiment.uri, run_id, experiment.spool)
            recorder.log(1, {"train/loss": 0.5})
            assert recorder.close(timeout=60)
        experiment.log_metrics({"test/recall@20": 0.1})
        experiment.set_tags({"model": "egra"})
        experiment.log_dict({"rows": 7}, "plan/tables.json")
        experiment.log_text("seed: 0\n", "config.yaml", run_id)
    parent, children = recorded(run_folder)
    train = children["train"]
    assert (parent.name, parent.status) == ("first", "FINISHED")
    assert parent.params == {
        "train.batch_size": "2048",
        "train.model.name": "egra",
        "train.model.modalities": "null",
    }
    assert parent.tags["data.digest"] == "abc"
    assert parent.tags["model"] == "egra"
    assert {"version.torch", "version.ray", "version.python", "host.num_cpus"} <= set(parent.tags)
    assert parent.metrics == {"test/recall_at_20": 0.1}
    assert (train.run_id, train.status, train.parent_id) == (run_id, "FINISHED", parent.run_id)
    assert train.params == {"lr": "0.001", "cutoffs": "[5, 10]"}
    assert train.metrics["train/loss"] == 0.5
    assert artifact(run_folder, parent.run_id, "plan/tables.json") == '{\n  "rows": 7\n}\n'
    assert artifact(run_folder, run_id, "config.yaml") == "seed: 0\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
)
def test_the_status_says_how_it_ended(run_folder, error, status):
    with pytest.raises(error), open_experiment(run_folder) as experiment:
        with experiment.stage("pretrain"):
            pass
        left_open = experiment.child("knn")
        with experiment.stage("train"):
            raise error
    parent, children = recorded(run_folder)
    assert parent.status == status
    assert {stage: run.status for stage, run in children.items()} == {
        "pretrain": "FINISHED",
        "knn": status,
        "train": status,
    }
    assert children["knn"].run_id == left_open


def test_a_terminated_job_ends_its_runs(run_folder):
    code = """
        import os, signal, sys, time
        from pathlib import Path
        from egra_dist.tracking.experiment import Experiment
        with Experiment.open(None, Path(sys.argv[1]), "egra") as experiment:
            with experiment.stage("train"):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(run_folder)]
    assert subprocess.run(command).returncode == EXIT_STOPPED
    parent, children = recorded(run_folder)
    assert (parent.status, children["train"].status) == ("KILLED", "KILLED")


def test_a_signal_that_comes_within_a_finaliser_is_not_lost(run_folder):
    code = """
        import os, signal, sys, time
        from pathlib import Path
        from egra_dist.tracking.experiment import Experiment
        class Finalised:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1)
        with Experiment.open(None, Path(sys.argv[1]), "egra") as experiment:
            Finalised()
            time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(run_folder)]
    assert subprocess.run(command).returncode == EXIT_STOPPED
    assert recorded(run_folder)[0].status == "KILLED"


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


def test_long_settings_are_kept_whole_as_artifacts(run_folder):
    long = {"ids": list(range(2000))}
    with open_experiment(run_folder, params=long) as experiment:
        run_id = experiment.run_id
    parent, _ = recorded(run_folder)
    assert len(parent.params["ids"]) < 500
    assert artifact(run_folder, run_id, "params/ids.txt") == str(long["ids"])


def test_more_settings_than_mlflow_takes_at_once(run_folder):
    params = {f"p{i}": i for i in range(250)}
    with open_experiment(run_folder, params=params):
        pass
    assert recorded(run_folder)[0].params == {name: str(value) for name, value in params.items()}


def test_without_mlflow_the_pipeline_goes_on_and_sync_delivers_everything(
    run_folder, uri, caplog, tmp_path
):
    picture = tmp_path / "figure.txt"
    picture.write_text("figure")
    with (
        caplog.at_level(logging.WARNING, "egra_dist"),
        open_experiment(run_folder, NOBODY, params={"a": 1}) as experiment,
    ):
        for stage in ("pretrain", "train"):
            with experiment.stage(stage, {"b": 2}) as run_id:
                recorder = MetricRecorder(NOBODY, run_id, experiment.spool)
                recorder.log(1, {"loss": 0.5})
                recorder.close(timeout=5)
        experiment.log_artifact(picture, "figures")
        experiment.log_metrics({"test/recall_at_20": 0.1})
    assert len([m for m in caplog.messages if m.startswith("MLflow is away at")]) == 1
    with pytest.raises(UserError, match=re.escape(f"{run_folder}: MLflow at {NOBODY}: ")):
        sync(run_folder)

    for _ in range(2):  # A second time there is nothing left to do.
        sync(run_folder, uri)
    parent, children = recorded(run_folder, uri)
    assert (parent.status, parent.params) == ("FINISHED", {"a": "1"})
    assert parent.metrics == {"test/recall_at_20": 0.1}
    assert {stage: run.metrics for stage, run in children.items()} == {
        "pretrain": {"loss": 0.5},
        "train": {"loss": 0.5},
    }
    assert {run.status for run in children.values()} == {"FINISHED"}
    client = open_client(uri)
    assert [a.path for a in client.list_artifacts(parent.run_id, "figures")] == [
        "figures/figure.txt"
    ]


def test_sync_ends_what_was_killed_without_a_word(run_folder):
    experiment = open_experiment(run_folder)
    experiment.child("train")
    experiment._lock.close()  # The process is gone, its lock with it.
    sync(run_folder)
    parent, children = recorded(run_folder)
    assert (parent.status, children["train"].status) == ("KILLED", "KILLED")


def test_a_run_whose_creation_was_not_answered_is_found_again(run_folder):
    with open_experiment(run_folder) as experiment:
        run_id = experiment.run_id
    ledger = Ledger.read(run_folder)
    ledger.runs[""].run_id = None  # As if the answer had been lost.
    ledger.write(run_folder)
    with open_experiment(run_folder) as experiment:
        assert experiment.run_id == run_id


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


def test_a_slow_mlflow_fails_no_run(run_folder, monkeypatch):
    is_over = threading.Event()
    monkeypatch.setattr(Mirror, "push", lambda self: is_over.wait(60))
    experiment = open_experiment(run_folder)
    assert not experiment.close(timeout=0.1)  # what waits behind the slow call is given up
    is_over.set()


def test_the_run_that_others_go_below_is_waited_for_while_its_database_is_made(
    run_folder, monkeypatch
):
    push = Mirror.push

    def slow_push(mirror):
        time.sleep(1)
        push(mirror)

    monkeypatch.setattr(Mirror, "push", slow_push)
    monkeypatch.setattr("egra_dist.tracking.experiment._LONGEST_WAIT_SECONDS", 0.1)
    with open_experiment(run_folder) as experiment:
        tags = experiment.tags_of_nested_runs
    assert tags == {PARENT_TAG: recorded(run_folder)[0].run_id}


def test_runs_are_below_none_while_mlflow_is_away(run_folder):
    with open_experiment(run_folder, NOBODY) as experiment:
        assert experiment.tags_of_nested_runs == {}


@pytest.mark.parametrize("bad", ["mlruns", "file:///tmp/mlruns", "htp://host:5000"])
def test_a_uri_where_mlflow_cannot_record_is_the_users_mistake(run_folder, bad):
    with pytest.raises(UserError, match=f"tracking.uri: '{re.escape(bad)}'"):
        open_experiment(run_folder, bad)


def test_passwords_are_not_written_down(run_folder):
    with open_experiment(run_folder, "http://me:secret@127.0.0.1:9"):
        pass
    assert "secret" not in (run_folder / "mlflow.json").read_text()


def test_sync_of_something_else_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}: not the folder of a recorded run")):
        sync(tmp_path)


def test_the_command_delivers_and_says_so(run_folder):
    app = typer.Typer()
    track.register(app)
    with open_experiment(run_folder) as experiment:
        run_id = experiment.child("train")
    recorder = MetricRecorder(NOBODY, run_id, run_folder / "spool")
    recorder.log(1, {"loss": 0.5})
    recorder.close(timeout=5)
    result = CliRunner().invoke(app, ["track", "sync", str(run_folder)])
    assert (result.exit_code, result.output) == (0, f"{run_folder}: MLflow has everything\n")
    assert recorded(run_folder)[1]["train"].metrics == {"loss": 0.5}
