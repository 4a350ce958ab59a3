"""What the results say first: each model with its better settings, by validation alone."""

import pytest

from tests.benchmarks.quality.experiments import MODELS
from tests.benchmarks.quality.histories import history_cells, history_table
from tests.benchmarks.quality.plan import Plan
from tests.benchmarks.quality.rows import better_settings
from tests.benchmarks.quality.summary import summary


def row(trial, valid, test, ndcg=None):
    metrics = {"recall_at_20": test, "ndcg_at_20": test / 2 if ndcg is None else ndcg}
    slices = {name: {"recall_at_20": test} for name in ("head", "tail")}
    return {
        "seed": trial.seed,
        "loss": trial.loss,
        "history": {"share": 0.9, "decay": 0.4 if trial.seed else 0.2},
        "valid": {"metrics": {"recall_at_20": valid}},
        "test": {"metrics": metrics, "slices": slices},
    }


def run_all(models, score, data="baby"):
    """Runs what is pending until nothing is; ``score`` gives validation, test and its NDCG."""
    measured = {}
    while pending := Plan(measured, [data], models).pending():
        measured |= {trial.digest: row(trial, *score(trial)) for trial in pending}
    return measured


def score(trial):
    """MGCN is best as published, but not on test; popularity has more recall there;
    EGRA loses a tenth with spoilt features."""
    if trial.model == "popularity":
        return 0.1, 0.12, 0.01
    if trial.model == "mgcn":
        return (0.4, 0.1) if trial.purpose == "published" else (0.3, 0.15)
    if trial.purpose == "30% corrupted, pretrained graph":
        return 0.5, 0.18
    return (0.5, 0.2) if trial.purpose != "published" else (0.2, 0.3)


@pytest.fixture(scope="module")
def measured():
    return run_all(["popularity", "mgcn", "egra"], score)


def test_better_settings_may_be_the_published_ones_and_test_does_not_count(measured):
    plan = Plan(measured, ["baby"], list(MODELS))
    tests = [
        r["test"]["metrics"]["recall_at_20"]
        for r in better_settings(plan, "baby", "mgcn", measured)
    ]
    assert tests == [0.1, 0.1, 0.1]
    assert better_settings(plan, "baby", "gume", measured) == []


def test_summary_compares_egra_with_each_and_says_what_was_not_run(measured):
    lines = summary(measured).splitlines()
    cells = {
        line.split(" | ")[0][2:]: line.split(" | ")[1].rstrip(" |")
        for line in lines
        if line[:2] == "| "
    }
    assert cells["EGRA, test R@20 / N@20"] == "egra: 0.2000 / 0.1000"
    assert cells["best of the others on test"] == "popularity: 0.1200 / mgcn: 0.0500"
    assert cells["EGRA's R@20 / N@20 against them"] == "+66.7% / +100.0%"
    assert cells["against MGCN"] == "+100.0%"
    assert cells["against LightGCN"] == "not run"
    assert cells["R@20 kept with 30% of modality rows corrupted"] == "90.0% (3 seeds)"


def test_histories_are_compared_with_those_of_others_and_with_the_same_seeds_without():
    def scored(trial):
        valid, test = score(trial)
        return (valid, test + 0.5) if trial.purpose == "history" else (valid, test)

    measured = run_all(["lightgcn", "mgcn", "egra"], scored, "microlens50k")
    plan = Plan(measured, ["microlens50k"], list(MODELS))
    assert history_cells(plan, "microlens50k", measured) == [
        "egra: 0.7000 / 0.3500",
        "lightgcn: 0.7000 / lightgcn: 0.3500",
    ]
    lines = history_table(plan, "microlens50k", measured).splitlines()
    (line,) = (line for line in lines if line.startswith("| mgcn"))
    spread = "0.6500 ± 0.0000 | 0.3250 ± 0.0000 | 0.3000 ± 0.0000 | 0.1500 ± 0.0000"
    assert line == f"| mgcn | bpr | 3 | 0.9, 0.4; 0.9, 0.2 | {spread} |"
    assert history_cells(plan, "baby", measured) == ["no order known"] * 2


def test_summary_is_empty_before_anything_is_compared():
    assert summary({}) == ""
