"""The whole pipeline through the command line: a small catalogue, two workers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.config import load_config
from egra_dist.graph.csr import Csr
from egra_dist.tracking.client import open_client
from egra_dist.train.task import HISTORY

CONFIG = Path("configs/default.yaml")
QUICK = [
    "pretrain.max_epochs=2",
    "train.max_epochs=3",
    "train.batch_size=512",
    "train.alignment.ramp_steps=10",
    "tracking.log_every_steps=1",
]


def egra_dist(*arguments: object) -> str:
    """Runs the command line; returns what it wrote to standard error and output."""
    done = subprocess.run(
        [sys.executable, "-m", "egra_dist", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


@pytest.fixture(scope="module")
def catalog(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "catalog"
    synthesize(SynthSettings(num_items=300, num_users=400, num_interactions=4000), folder)
    return folder


@pytest.fixture(scope="module")
def finished(catalog) -> tuple[Path, str]:
    out = catalog.parent / "run"
    options = [f"--set={setting}" for setting in QUICK]
    said = egra_dist("run", CONFIG, "--catalog", catalog, "--out", out, "--workers=2", *options)
    return out, said


def run_again(catalog: Path, out: Path, *settings: str, last_stage: str = "export") -> set[Path]:
    """Runs the pipeline in this process, on one worker; returns the artifacts it has made."""
    from egra_dist.pipeline import run_pipeline

    before = {path: path.stat().st_mtime_ns for path in out.glob("artifacts/*/manifest.json")}
    config = load_config(CONFIG, [*QUICK, "cluster.num_workers=1", *settings])
    run_pipeline(config, Catalog.open(catalog), out, last_stage)
    after = {path: path.stat().st_mtime_ns for path in out.glob("artifacts/*/manifest.json")}
    assert all(after[path] == time for path, time in before.items())
    return {path.parent for path in after.keys() - before.keys()}


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
        table = pq.read_table(out / "export" / entities)
        assert table["raw_id"].to_pylist() == opened.raw_ids(entities).to_pylist()
        vectors = np.load(trained / f"{entities[:-1]}_vectors.npy")
        assert np.array_equal(np.stack(table["vector"].to_numpy()), vectors)


def test_exported_vectors_give_the_metrics_of_the_run(finished, catalog):
    out, _ = finished
    script = [sys.executable, "tests/e2e/independent_metrics.py", out / "export", catalog]
    done = subprocess.run(list(map(str, script)), capture_output=True, text=True, check=True)
    expected = json.loads((out / "metrics.json").read_text())["test"]
    for name, value in json.loads(done.stdout).items():
        # The run sums whole multiples of 2**-36, so that order and ranks do not matter.
        assert value == pytest.approx(expected[name], abs=2**-36), name


def test_exported_run_recommends_says_why_and_is_registered(finished, catalog):
    out, _ = finished
    said = egra_dist("export", out, "--top-k", 4, "--name", "shop", "--alias", "live")
    assert "index flat: recall@20 1.0000 of exact" in said
    assert "registered: shop version 1, @live" in said
    assert "shop version 1, @live" in egra_dist("export", out, "--name", "shop", "--alias", "live")

    answer = json.loads(egra_dist("recommend", out, "--user", 7, "-k", 4, "--json"))
    lists = pq.read_table(out / "top_k" / "users", filters=[("raw_id", "=", 7)]).to_pylist()
    ids, scores = ([item[name] for item in answer["items"]] for name in ("item", "score"))
    assert lists == [{"raw_id": 7, "items": ids, "scores": scores}]
    users, items = (pq.read_table(out / "export" / name) for name in ("users", "items"))
    vector = users["vector"][users["raw_id"].to_pylist().index(7)].as_py()
    for item in answer["items"]:
        own = items["vector"][items["raw_id"].to_pylist().index(item["item"])].as_py()
        assert item["score"] == pytest.approx(np.dot(vector, own), rel=1e-5)
        assert set(item["parts"]) == {"behavior", "modality_0", "modality_1"}
        assert sum(item["parts"].values()) == pytest.approx(item["score"])
        assert len(item["neighbors"]) == 3 and item["neighbors"][0]["cosine"] <= 1

    near = json.loads(egra_dist("recommend", out, "--items", "1,2,999", "-k", 3, "--json"))
    assert (near["source"], near["ignored"]) == ("items", [999])
    for item in near["items"]:
        shares = [neighbor["share"] for neighbor in item["neighbors"]]
        assert sum(shares) == pytest.approx(item["score"], rel=1e-5)
    shown = egra_dist("recommend", out, "--items", "1,2,999", "-k", 3)
    assert "not known: 999" in shown and " = behavior " in shown

    code = (
        "import mlflow, sys; mlflow.set_tracking_uri(sys.argv[1]);"
        "model = mlflow.pyfunc.load_model('models:/shop@live');"
        "print(model.predict([{'user_id': 7}], params={'k': 4})['items'][0],"
        "sorted({'torch', 'ray', 'torchrec', 'egra_dist'} & set(sys.modules)))"
    )
    uri = f"sqlite:///{out}/mlflow.db"
    command = [sys.executable, "-c", code, uri]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=out)
    assert done.stdout.split("\n")[-2] == f"{ids} []"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["recommend", "{run}"], "give --user ID, or --items A,B"),
        (["recommend", "{run}", "--user", "x"], "--user 'x': an id must be an integer"),
        (["export", "{run}", "--set", "train.seed=1"], "--set train.seed: the run is trained"),
        (["recommend", "{run}", "--user", "99999"], "--user 99999: no such user; give --items"),
        (["recommend", "{tmp}", "--user", "1"], "not a run folder"),
        (["export", "{tmp}"], "not a run folder"),
        (["export", "{run}", "--catalog", "{tmp}"], "not a catalog folder"),
        (["export", "{run}", "--alias", "a b"], "export.alias"),
    ],
)
def test_mistakes_about_finished_runs_are_one_line(refused, finished, tmp_path, arguments, words):
    filled = [text.format(run=finished[0], tmp=tmp_path) for text in arguments]
    assert words in refused(*filled)


def test_mlflow_has_a_parent_run_and_a_child_per_stage(finished):
    out, _ = finished
    client = open_client(f"sqlite:///{out}/mlflow.db")
    experiment = client.get_experiment_by_name("egra")
    runs = client.search_runs([experiment.experiment_id])
    children = {run.data.tags["mlflow.runName"]: run for run in runs}
    stages = ("graphs", "pretrain", "knn", "merge", "train", "export")
    assert {"run", *(f"run/{stage}" for stage in stages)} <= set(children)
    assert all(run.info.status == "FINISHED" for run in runs)
    parent = children["run"]
    assert parent.data.params["train.alignment.focus"] == "hard"
    assert "test/recall_at_20" in parent.data.metrics
    knn = children["run/knn"].data
    assert knn.metrics["neighbors/recall"] == 1
    names = ("recall_half_width", "in_degree/p99", "core_seconds/total")
    assert {f"neighbors/{name}" for name in names} <= set(knn.metrics)
    assert knn.tags["neighbors/method"] == "exact"
    (manifest,) = (out / "artifacts").glob("knn-*/manifest.json")
    counts = json.loads(manifest.read_text())["counts"]
    assert counts["recall_rows"] == knn.metrics["neighbors/recall_rows"] == 300
    train = children["run/train"]
    assert train.data.tags["mlflow.parentRunId"] == parent.info.run_id
    steps = client.get_metric_history(train.info.run_id, "alignment/lambda")
    assert [point.step for point in steps] == list(range(len(steps)))
    assert [point.value for point in steps] == sorted(point.value for point in steps)
    for name in ("train/loss_total", "valid/recall_at_20", "alignment/user_weight_p50"):
        history = client.get_metric_history(train.info.run_id, name)
        copied = client.get_metric_history(parent.info.run_id, name)
        assert history and copied[: len(history)] == history
    best = json.loads((out / "metrics.json").read_text())["valid"]["recall_at_20"]
    assert parent.data.metrics["valid/recall_at_20"] == best


def test_mlflow_has_data_sets_tags_figures_and_surroundings(finished, catalog):
    out, _ = finished
    client = open_client(f"sqlite:///{out}/mlflow.db")
    experiment = client.get_experiment_by_name("egra")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    parent, train, merge = runs["run"], runs["run/train"], runs["run/merge"]
    digest = Catalog.open(catalog).digest
    (dataset,) = (found.dataset for found in parent.inputs.dataset_inputs)
    assert (dataset.name, dataset.digest) == ("catalog", digest)
    assert "features.modality_0[64]" in dataset.schema and "interactions.user" in dataset.schema
    made_from = {found.dataset.name: found.dataset.digest for found in train.inputs.dataset_inputs}
    assert set(made_from) == {"catalog", "graphs", "merge"}
    assert made_from["merge"] == merge.data.tags["digest"] == parent.data.tags["graph_digest"]
    wanted = {"dataset": "catalog", "model": "egra", "seed": "0", "cluster": "local"}
    for run in (parent, train):
        assert wanted.items() <= run.data.tags.items()
    assert runs["run/pretrain"].data.tags["model"] == "mgcn"
    assert 0 < merge.data.metrics["graph/agreement/any"] <= 1

    def artifacts(run, folder):
        return {Path(f.path).name for f in client.list_artifacts(run.info.run_id, folder)}

    figures = {"alignment_schedule.png", "entity_weights.png", "alignment_by_popularity.png"}
    assert artifacts(train, "figures") == figures
    assert artifacts(parent, "figures") == figures | {"item_graph.png"}
    assert artifacts(parent, "environment") == {"packages.txt", "facts.json"}
    assert artifacts(parent, "graph") == {"statistics.json"}
    assert artifacts(merge, "tables") == {"neighbors.json"}
    path = client.download_artifacts(train.info.run_id, "plan/sharding.json")
    shards = json.loads(Path(path).read_text())["user"]["shards"]
    assert [(shard["first_row"], shard["rows"]) for shard in shards] == [(0, 200), (200, 200)]


def test_second_run_runs_nothing_and_a_new_alignment_trains_alone(finished, catalog, local_ray):
    out, _ = finished
    assert run_again(catalog, out) == set()
    (new,) = run_again(catalog, out, "train.alignment.focus=easy", last_stage="train")
    assert new.name.startswith("train-")


def test_a_share_for_the_modality_branch_is_trained_with(finished, catalog, local_ray):
    out, _ = finished
    made = run_again(catalog, out, "item_graph.modality_share=0.5", last_stage="train")
    kinds = {folder.name.split("-")[0]: folder for folder in made}
    assert set(kinds) == {"merge", "train"}
    counts = json.loads((kinds["merge"] / "manifest.json").read_text())["counts"]
    assert set(counts["num_modality_edges"]) == {"modality_0", "modality_1"}
    merged = Csr.load(kinds["merge"] / "features" / "modality_0")
    (graphs,) = out.glob("artifacts/graphs-*")
    raw = Csr.load(graphs / "features" / "modality_0")
    assert merged.num_entries == counts["num_modality_edges"]["modality_0"] > raw.num_entries
    vectors = np.load(kinds["train"] / "item_vectors.npy")
    others = [path for path in out.glob("artifacts/train-*") if path != kinds["train"]]
    assert others
    for path in others:
        assert not np.allclose(np.load(path / "item_vectors.npy"), vectors, atol=1e-3)


def test_other_cutoffs_rank_again_without_training(finished, catalog, local_ray):
    out, _ = finished
    first = json.loads((out / "metrics.json").read_text())["test"]
    assert run_again(catalog, out, "evaluation.cutoffs=[3, 20]") == set()
    second = json.loads((out / "metrics.json").read_text())["test"]
    assert "recall_at_3" in second and "recall_at_10" not in second
    assert second["ndcg_at_20"] == first["ndcg_at_20"]


def test_histories_change_users_without_training(finished, catalog, local_ray):
    out, _ = finished
    made = run_again(catalog, out, "history.shares=[0.3, 0.9]", "history.decays=[1]")
    kinds = {folder.name.rpartition("-")[0]: folder for folder in made}
    assert set(kinds) == {"history", "pretrain.history"}
    metrics = json.loads((out / "metrics.json").read_text())
    for kind, model in (("history", "egra"), ("pretrain.history", "mgcn")):
        tried = json.loads((kinds[kind] / HISTORY).read_text())
        counts = json.loads((kinds[kind] / "manifest.json").read_text())["counts"]
        assert len(tried) == 2 and {**counts, **tried[0]} == counts
        score = metrics["models"][model]["valid"]["recall_at_20"]
        assert score == tried[0]["score"] == max(each["score"] for each in tried)

    # Users are exported as they were evaluated; also by the verb, later.
    vectors = np.load(kinds["history"] / "user_vectors.npy")
    for trained in out.glob("artifacts/train-*"):
        assert not np.allclose(vectors, np.load(trained / "user_vectors.npy"), atol=1e-3)
    for _ in range(2):
        users = pq.read_table(out / "export" / "users")
        np.testing.assert_array_equal(np.stack(users["vector"].to_numpy()), vectors)
        shutil.rmtree(out / "export")
        egra_dist("export", out)
