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
        (trials,) = MODELS[model].rounds(loss, 4)
        assert len({str(sorted(trial.items())) for trial in trials}) == 4
        assert MODELS[model].rounds(loss, 2) == [trials[:2]], "a larger budget goes on"


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
        for t in MODELS["mgcn"].rounds("bpr", DATA_SETS["tiktok"]["trials"])[0]
    )
    assert {t.settings["pretrain.alignment.lambda_max"] for t in searches} == {best}


def test_a_model_may_be_searched_in_other_values_on_a_data_set():
    tried = {
        (data, loss): {
            settings["train.alignment.lambda_max"]
            for settings in MODELS["egra"].rounds(loss, 4, data)[0]
        }
        for data in ("baby", "microlens50k")
        for loss in ("bpr", "softmax")
    }
    assert tried.pop(("microlens50k", "softmax")) == {0.1}
    assert all(values <= {0.01, 0.03} for values in tried.values())


def test_second_round_has_as_many_trials_again_and_the_best_pretrained_model_so_far():
    strength = "alignment.lambda_max"
    models = ["lightgcn", "mgcn", "egra"]
    mgcn = plan_of("search", "microlens50k", "mgcn")
    first = [trial for trial in mgcn if trial.settings[f"train.{strength}"] <= 0.1]
    measured = measure(first, lambda trial: trial.settings[f"train.{strength}"])
    assert Plan(measured, ["microlens50k"], models).best("microlens50k", "mgcn") is None
    measured |= measure(mgcn, lambda trial: trial.settings[f"train.{strength}"])
    plan = Plan(measured, ["microlens50k"], models)
    by_round = [[], []]
    for trial in plan.searches("microlens50k", "egra", "softmax"):
        by_round[trial.settings["train.ranking.temperature"] == 0.2].append(trial.settings)
    assert [len(each) for each in by_round] == [2, 2]
    assert [{t[f"pretrain.{strength}"] for t in each} for each in by_round] == [{0.1}, {1.0}]
    assert [{t[f"train.{strength}"] for t in each} for each in by_round] == [{0.1}, {0.3}]
    for model in models:
        every = plan.searches("microlens50k", model, "softmax")
        assert len(every) == 2 * len(plan.searches("microlens50k", model, "bpr")) == 4


def test_search_is_not_finished_while_a_round_waits_for_the_pretrained_model():
    mgcn = plan_of("search", "microlens50k", "mgcn")
    first = [trial for trial in mgcn if trial.settings["train.alignment.lambda_max"] <= 0.1]
    measured = measure(first, lambda trial: 0.0)
    plan = Plan(measured, ["microlens50k"], ["mgcn", "egra"])
    egra = plan.searches("microlens50k", "egra", "softmax")
    assert len(egra) == 2
    measured |= measure(egra, lambda trial: 1.0)
    plan = Plan(measured, ["microlens50k"], ["mgcn", "egra"])
    assert plan.best("microlens50k", "egra", ["softmax"]) is None


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


def test_histories_are_run_for_every_trained_model_where_the_order_is_known():
    searches = plan_of("search", "microlens50k", "lightgcn")
    wanted = next(trial for trial in searches if trial.loss == "softmax")
    measured = measure(searches, lambda trial: float(trial == wanted))
    histories = plan_of("history", "microlens50k", "lightgcn", measured)
    assert [(trial.loss, trial.seed) for trial in histories] == [("softmax", s) for s in range(3)]
    for trial in histories:
        assert trial.settings.items() >= wanted.settings.items()
        assert {key for key in trial.settings if key not in wanted.settings} == {
            "history.shares",
            "history.decays",
        }
    shallow = measure(plan_of("search", "microlens50k", "ease"), lambda trial: 0.0)
    assert plan_of("history", "microlens50k", "ease", shallow) == []
    elsewhere = measure(plan_of("search", "baby", "lightgcn"), lambda trial: 0.0)
    assert plan_of("history", "baby", "lightgcn", elsewhere) == []
