"""The whole pipeline through the command line: a small catalogue, two workers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from egra_dist.catalog.catalog import Catalog
from egra_dist.tracking.client import open_client

QUICK = [
    "--workers=2",
    "--set=pretrain.max_epochs=2",
    "--set=train.max_epochs=3",
    "--set=train.batch_size=512",
    "--set=train.alignment.ramp_steps=10",
    "--set=tracking.log_every_steps=1",
]


def egra_dist(*arguments: object, expected: int = 0) -> str:
    """Runs the command line; returns what it wrote to standard error and output."""
    done = subprocess.run(
        [sys.executable, "-m", "egra_dist", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"},
    )
    assert done.returncode == expected, done.stderr
    return done.stderr + done.stdout


@pytest.fixture(scope="module")
def catalog(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "catalog"
    egra_dist("synth", "--items=300", "--users=400", "--interactions=4000", "--out", folder)
    return folder


@pytest.fixture(scope="module")
def finished(catalog) -> tuple[Path, str]:
    out = catalog.parent / "run"
    said = egra_dist("run", "configs/default.yaml", "--catalog", catalog, "--out", out, *QUICK)
    return out, said


def test_run_leaves_metrics_of_every_model(finished):
    out, said = finished
    metrics = json.loads((out / "metrics.json").read_text())
    for split in ("valid", "test"):
        assert 0 < metrics[split]["recall_at_20"] <= 1
        assert metrics["models"]["egra"][split] == metrics[split]
    assert set(metrics["models"]) == {"popularity", "mgcn", "egra"}
    assert all(metrics["stages"][stage] > 0 for stage in ("pretrain", "knn", "merge", "train"))
    assert "tail" in metrics["slices"]["test"]
    assert "recall_at_20" in said and "egra" in said


def test_run_says_one_line_per_stage_and_no_library_speaks(finished):
    _, said = finished
    lines = [line for line in said.splitlines() if "│" not in line and "━" not in line]
    assert sum(" train: done in" in line for line in lines) == 1
    for noise in ("WARNING", "Warning", "(RayTrainWorker", "fbgemm", "alembic", "planner"):
        assert noise not in said


def test_exported_vectors_carry_raw_ids_and_reproduce_the_trained_ones(finished, catalog):
    out, _ = finished
    opened = Catalog.open(catalog)
    (trained,) = (out / "artifacts").glob("train-*")
    for entities in ("users", "items"):
        table = pq.read_table(out / "export" / f"{entities}.parquet")
        assert table["raw_id"].to_pylist() == opened.raw_ids(entities).to_pylist()
        vectors = np.load(trained / f"{entities[:-1]}_vectors.npy")
        assert np.array_equal(np.stack(table["vector"].to_numpy()), vectors)


def test_mlflow_has_a_parent_run_and_a_child_per_stage(finished):
    out, _ = finished
    client = open_client(f"sqlite:///{out}/mlflow.db")
    experiment = client.get_experiment_by_name("egra")
    runs = client.search_runs([experiment.experiment_id])
    children = {run.data.tags["mlflow.runName"]: run for run in runs}
    assert {"run", "graphs", "pretrain", "knn", "merge", "train", "export"} <= set(children)
    assert all(run.info.status == "FINISHED" for run in runs)
    parent = children["run"]
    assert parent.data.params["train.alignment.focus"] == "hard"
    assert "test/recall_at_20" in parent.data.metrics
    train = children["train"]
    assert train.data.tags["mlflow.parentRunId"] == parent.info.run_id
    steps = client.get_metric_history(train.info.run_id, "alignment/lambda")
    assert [point.step for point in steps] == list(range(len(steps)))
    assert [point.value for point in steps] == sorted(point.value for point in steps)
    for name in ("train/loss_total", "valid/recall_at_20", "alignment/user_weight_p50"):
        assert client.get_metric_history(train.info.run_id, name)


def test_second_run_runs_nothing_and_a_new_alignment_trains_alone(finished, catalog):
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in out.glob("artifacts/*/manifest.json")}
    arguments = ("run", "configs/default.yaml", "--catalog", catalog, "--out", out, *QUICK)
    egra_dist(*arguments)
    assert before == {p: p.stat().st_mtime_ns for p in out.glob("artifacts/*/manifest.json")}
    egra_dist(*arguments, "--set=train.alignment.focus=easy", "--stage=train")
    after = {path: path.stat().st_mtime_ns for path in out.glob("artifacts/*/manifest.json")}
    (new,) = after.keys() - before.keys()
    assert new.parent.name.startswith("train-")
    assert all(after[path] == time for path, time in before.items())


def test_other_cutoffs_rank_again_without_training(finished, catalog):
    out, _ = finished
    before = set(out.glob("artifacts/*/manifest.json"))
    arguments = ("run", "configs/default.yaml", "--catalog", catalog, "--out", out, *QUICK)
    first = json.loads((out / "metrics.json").read_text())["test"]
    egra_dist(*arguments, "--set=evaluation.cutoffs=[3, 20]")
    second = json.loads((out / "metrics.json").read_text())["test"]
    assert before == set(out.glob("artifacts/*/manifest.json"))
    assert "recall_at_3" in second and "recall_at_10" not in second
    assert second["ndcg_at_20"] == first["ndcg_at_20"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set=train.aligment.focus=hard"], "did you mean 'train.alignment'"),
        (["--stage=trian"], "stage 'trian' is not known"),
        (["--set=train.model.modalities=[smell]"], "no modality 'smell'"),
    ],
)
def test_mistakes_are_one_line_and_exit_status_2(catalog, tmp_path, arguments, words):
    said = egra_dist(
        "run", "configs/default.yaml", "--catalog", catalog, "--out", tmp_path / "r", *arguments,
        expected=2,
    )  # fmt: skip
    assert words in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("r/artifacts/*"))


def test_run_folder_that_cannot_be_written(catalog, tmp_path):
    (tmp_path / "file").write_text("")
    said = egra_dist(
        "run", "configs/default.yaml", "--catalog", catalog, "--out", tmp_path / "file" / "run",
        expected=2,
    )  # fmt: skip
    assert "cannot be written" in said
