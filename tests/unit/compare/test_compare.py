"""Comparing what MLflow has: found by id, name, folder, filter and search; written and logged."""

import csv
import re

import pytest
from typer.testing import CliRunner

from egra_dist.cli.compare import compare
from egra_dist.compare.find import Finder
from egra_dist.compare.report import Comparison
from egra_dist.errors import UserError
from egra_dist.tracking.client import open_client
from tests.recorded import record_run, record_sweep

BEST = {("linear", 0): 0.20, ("linear", 1): 0.21, ("cosine", 0): 0.23, ("cosine", 1): 0.25}


def settings(ramp, seed):
    alignment = {"ramp": ramp, "lambda_max": 0.01}
    return {"seed": seed, "train": {"metric": "recall_at_20", "alignment": alignment}}


@pytest.fixture(scope="module")
def search(tmp_path_factory, empty_database):
    """A search of four trials and a run of its own, in one store."""
    import shutil

    folder = tmp_path_factory.mktemp("compare")
    store = f"sqlite:///{shutil.copy(empty_database, folder / 'mlflow.db')}"
    trials = [(settings(*key), best) for key, best in BEST.items()]
    head = record_sweep(store, folder / "search", trials)
    alone = record_run(store, folder / "alone", settings("tanh", 0), 0.3, with_test=False)
    return folder, store, head, alone


def command(*arguments):
    import typer

    app = typer.Typer()
    app.command()(compare)
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


def test_a_search_is_compared_by_group_with_curves_and_cost(search):
    folder, _, head, _ = search
    found_head, found = Finder(None, "egra").sweep(str(folder / "search"))
    comparison = Comparison.of(found)
    assert found_head.parent.run_id == head
    assert [g.settings for g in comparison.groups] == [
        {"train.alignment.ramp": "linear"},
        {"train.alignment.ramp": "cosine"},
    ]
    first = comparison.groups[0].runs[0]
    assert first.metrics["valid/recall_at_20"] == pytest.approx(0.20)
    assert first.metrics["test/recall_at_20"] == pytest.approx(0.18)
    assert [p.step for p in first.series["valid/recall_at_20"]] == [0, 10, 20, 30]
    assert len(first.series["alignment/lambda"]) == 40
    assert (first.cost["epochs"], first.cost["peak GiB"]) == (4, 1.5)
    tables = {table.title: table for table in comparison.tables()}
    texts = [[cell.text for cell in row] for row in tables["Settings that differ"].rows]
    assert texts == [["A", "2", "0, 1", "linear"], ["B", "2", "0, 1", "cosine"]]
    assert "Slices of the test split: recall_at_20" in tables


def test_runs_are_found_by_id_name_folder_and_filter(search):
    folder, store, _, alone = search
    finder = Finder(store, "egra")
    by_each = finder.runs([alone, "alone", str(folder / "alone")])
    assert {found.parent.run_id for found in by_each} == {alone}
    stage = by_each[0].stages["train"]
    assert finder.runs([stage.run_id])[0].parent.run_id == alone
    matching = finder.matching("params.`train.alignment.ramp` = 'cosine'")
    assert [found.parent.name for found in matching] == ["0002", "0003"]
    assert len(finder.sweep("search")[1]) == 4


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f: f.runs(["nothing"]), "nothing: neither a run folder nor the id or name"),
        (lambda f: f.runs(["0" * 32]), "run 000"),
        (lambda f: f.sweep("nothing"), "no search of this name"),
        (lambda f: f.matching("tags.x =="), "filter 'tags.x ==': "),
        (lambda f: Comparison.of(f.runs(["alone"])), "at least two"),
        (lambda f: Comparison.of(f.runs(["alone", "0000"]), baseline="x"), "--baseline x: none"),
    ],
)
def test_mistakes_are_named(search, call, words):
    with pytest.raises(UserError, match=re.escape(words)):
        call(Finder(search[1], "egra"))


def test_a_name_without_a_store_asks_for_one(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="--uri"):
        Finder(None, "egra").runs(["alone"])


def test_page_is_self_contained_and_csv_has_every_run(search, tmp_path):
    _, store, _, _ = search
    done = command("--uri", store, "--sweep", "search", "alone", "--out", tmp_path / "out")
    assert "-0.1000" in done.output and "linear" in done.output
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert page.count("<svg") == page.count("</svg>") == 4
    assert not re.search(r"<script|<link|<img|url\((?!#)|(src|href)=\"(?!#)", page)
    runs = list(csv.DictReader((tmp_path / "out" / "runs.csv").open()))
    assert [row["run"] for row in runs] == ["alone", "0000", "0001", "0002", "0003"]
    assert float(runs[4]["valid/recall_at_20"]) == pytest.approx(0.25)
    groups = list(csv.DictReader((tmp_path / "out" / "groups.csv").open()))
    (row,) = (r for r in groups if r["group"] == "C" and r["metric"] == "test/recall_at_20")
    assert float(row["mean"]) == pytest.approx(0.9 * 0.24)


def test_log_adds_the_page_to_the_search_or_to_a_run_of_its_own(search):
    folder, store, head, _ = search
    client = open_client(store)
    command("--sweep", folder / "search", "--log")
    assert {f.path for f in client.list_artifacts(head, "comparison")} == {
        "comparison/comparison.html",
        "comparison/runs.csv",
        "comparison/groups.csv",
    }
    done = command("--uri", store, "alone", "0000", "--log")
    run_id = done.output.split()[-1]
    assert client.get_run(run_id).info.run_name == "comparison of 2 runs"
    assert client.list_artifacts(run_id, "comparison")
