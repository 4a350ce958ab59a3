"""The plan of the quality benchmark: equal budgets, nothing chosen on test, nothing run twice."""

import pytest

from tests.benchmarks.quality.experiments import DATA_SETS, MODELS
from tests.benchmarks.quality.plan import Plan

TRAINED = [name for name, model in MODELS.items() if not model.is_shallow]


def measure(trials, score):
    """Rows as trials leave them: a search has no test figures."""
    rows = {}
    for trial in trials:
        row = {"valid": {"metrics": {"recall_at_20": score(trial)}}}
        rows[trial.digest] = row if trial.is_search else {**row, "test": {}}
    return rows


@pytest.mark.parametrize("model", TRAINED)
def test_every_model_has_the_same_number_of_different_trials(model):
    for loss in MODELS[model].losses:
        trials = MODELS[model].trials(loss, 4)
        assert len({str(sorted(trial.items())) for trial in trials}) == 4
        assert MODELS[model].trials(loss, 2) == trials[:2], "a larger budget goes on"


def test_pretrained_model_is_searched_before_what_needs_it():
    plan = Plan({}, ["tiktok"], ["mgcn", "egra"])
    searches = [trial for trial in plan.pending() if trial.is_search]
    assert {trial.model for trial in searches} == {"mgcn"}
    measured = measure(searches, lambda trial: trial.settings["train.alignment.lambda_max"])
    pending = Plan(measured, ["tiktok"], ["mgcn", "egra"]).pending()
    searches = [trial for trial in pending if trial.is_search and trial.model == "egra"]
    assert len(searches) == 2 * DATA_SETS["tiktok"]["trials"]
    best = max(
        t["train.alignment.lambda_max"]
        for t in MODELS["mgcn"].trials("bpr", DATA_SETS["tiktok"]["trials"])
    )
    assert {t.settings["pretrain.alignment.lambda_max"] for t in searches} == {best}


def test_a_model_may_be_searched_in_other_values_on_a_data_set():
    tried = {
        (data, loss): {
            settings["train.alignment.lambda_max"]
            for settings in MODELS["egra"].trials(loss, 4, data)
        }
        for data in ("baby", "microlens50k")
        for loss in ("bpr", "softmax")
    }
    assert tried.pop(("microlens50k", "softmax")) == {0.1}
    assert all(values <= {0.01, 0.03} for values in tried.values())


def plan_of(purpose, data, model, measured=None):
    """Pending trials of one purpose."""
    pending = Plan(measured or {}, [data], [model]).pending()
    return [trial for trial in pending if trial.purpose == purpose]


def test_published_settings_are_run_with_every_seed_and_depend_on_no_search():
    trials = plan_of("published", "baby", "mgcn")
    assert [trial.seed for trial in trials] == [0, 1, 2]
    assert {trial.settings["train.alignment.lambda_max"] for trial in trials} == {0.01}
    assert plan_of("published", "baby", "vbpr") == []


def test_finals_have_the_best_settings_by_validation_and_every_seed():
    searches = plan_of("search", "tiktok", "lightgcn")
    assert plan_of("final", "tiktok", "lightgcn") == []
    wanted = next(trial for trial in searches if trial.loss == "bpr")
    measured = measure(searches, lambda trial: float(trial == wanted))
    finals = plan_of("final", "tiktok", "lightgcn", measured)
    better = [trial for trial in finals if trial.loss == "bpr"]
    assert sorted(trial.seed for trial in better) == [0, 1, 2, 3, 4]
    assert all(trial.settings == wanted.settings for trial in better)
    assert sorted(trial.seed for trial in finals if trial.loss == "softmax") == [0, 1]
    done = {**measured, **measure(better[:3], lambda trial: 0.0)}
    left = [t for t in plan_of("final", "tiktok", "lightgcn", done) if t.loss == "bpr"]
    assert left == better[3:]
