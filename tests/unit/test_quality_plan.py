"""The plan of the quality benchmark: equal budgets, nothing chosen on test, nothing run twice."""

import pytest

from tests.benchmarks.quality.experiments import MODELS, NUM_TRIALS
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
        trials = MODELS[model].trials(loss, NUM_TRIALS)
        assert len({str(sorted(trial.items())) for trial in trials}) == NUM_TRIALS


def test_pretrained_model_is_searched_before_what_needs_it():
    plan = Plan({}, ["tiktok"], ["mgcn", "egra"])
    assert {trial.model for trial in plan.pending()} == {"mgcn"}
    measured = measure(plan.pending(), lambda trial: trial.settings["train.alignment.lambda_max"])
    pending = Plan(measured, ["tiktok"], ["mgcn", "egra"]).pending()
    searches = [trial for trial in pending if trial.model == "egra"]
    assert len(searches) == 2 * NUM_TRIALS
    best = max(t["train.alignment.lambda_max"] for t in MODELS["mgcn"].trials("bpr", NUM_TRIALS))
    assert {t.settings["pretrain.alignment.lambda_max"] for t in searches} == {best}


def test_finals_have_the_best_settings_by_validation_and_every_seed():
    searches = Plan({}, ["tiktok"], ["lightgcn"]).pending()
    assert all(trial.is_search for trial in searches)
    wanted = next(trial for trial in searches if trial.loss == "bpr")
    measured = measure(searches, lambda trial: float(trial == wanted))
    finals = [t for t in Plan(measured, ["tiktok"], ["lightgcn"]).pending() if t.loss == "bpr"]
    assert [trial.seed for trial in finals] == [0, 1, 2, 3, 4]
    assert all(trial.settings == wanted.settings for trial in finals)
    done = {**measured, **measure(finals[:3], lambda trial: 0.0)}
    left = [t for t in Plan(done, ["tiktok"], ["lightgcn"]).pending() if t.loss == "bpr"]
    assert [trial.seed for trial in left] == [3, 4]
