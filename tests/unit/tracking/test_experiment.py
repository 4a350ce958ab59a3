"""One parent run, a child per stage, whatever happens in between."""

import logging
import re
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
from egra_dist.tracking.client import open_client
from egra_dist.tracking.ledger import Ledger
from egra_dist.tracking.mirror import PARENT_TAG, Mirror
from egra_dist.tracking.recorder import MetricRecorder
from egra_dist.tracking.sync import sync
from tests.experiments import NOBODY, open_experiment, recorded


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
