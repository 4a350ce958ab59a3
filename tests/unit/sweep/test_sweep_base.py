from pathlib import Path

import pytest

from egra_dist.config import Config, load_config, parse_config
from egra_dist.errors import UserError
from egra_dist.sweep.base import changed, last_shared_stage, prepare
from egra_dist.sweep.space import load_space, parse_space

REPOSITORY = Path(__file__).parents[3]


def prepared(space, config=None, **others):
    return prepare(config or Config(), parse_space({"space": space, **others}), "s.yaml")


def test_changes_leave_the_rest_as_it_was():
    config = parse_config({"train": {"model": {"dim": 32}, "batch_size": 7}, "seed": 4})
    after = changed(config, {"train.model.num_layers": 3, "item_graph.beta": 0.5})
    expected = {"train": {"model": {"dim": 32, "num_layers": 3}, "batch_size": 7}, "seed": 4}
    assert after == parse_config({**expected, "item_graph": {"beta": 0.5}})
    assert config.train.model.num_layers == 2


def test_only_what_is_given_is_written_down():
    after = changed(parse_config({"train": {"batch_size": 7}}), {"item_graph.beta": 0.5})
    written = after.model_dump(mode="json", exclude_unset=True)
    assert written == {"train": {"batch_size": 7}, "item_graph": {"beta": 0.5}}


@pytest.mark.parametrize("name", ["egra", "item_graph"])
@pytest.mark.parametrize("config", sorted(REPOSITORY.glob("configs/*.yaml")), ids=lambda p: p.stem)
def test_shipped_spaces_suit_shipped_configurations(name, config):
    space = load_space(REPOSITORY / "configs" / "sweeps" / f"{name}.yaml")
    base = prepare(load_config(config), space)
    for settings in space.trials():
        changed(base, settings)
    assert last_shared_stage(space.space) == "pretrain"


def test_values_are_checked_beside_those_that_others_draw():
    config = parse_config({"train": {"alignment": {"lambda_start": 0.01, "lambda_max": 0.1}}})
    strengths = {"train.alignment.lambda_max": {"log_uniform": [0.001, 0.1]}}
    with pytest.raises(UserError, match=r"lambda_start = 0.01: must not be above lambda_max = 0.0"):
        prepared(strengths, config)
    from_zero = {"train.alignment.lambda_start": {"choice": [0]}, **strengths}
    assert prepared(from_zero, config).train.alignment.lambda_start == 0.01
    with pytest.raises(UserError, match=r"lambda_start = 0.01: must not be above lambda_max = 0.0"):
        prepared({"train.alignment.lambda_start": {"choice": [0, 0.01]}, **strengths})


def test_trials_train_the_searched_model_alone_by_the_metric_of_the_search():
    config = parse_config({"baselines": {"light": {"model": {"name": "lightgcn"}}}})
    base = prepared({"item_graph.k": {"integer": [5, 9]}}, config, metric="ndcg_at_10")
    assert base.baselines == {}
    assert base.train.metric == "ndcg_at_10"


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"train.aligment.focus": {"grid": ["hard"]}}, "did you mean 'train.alignment'?"),
        ({"train.alignment.focus": {"choice": ["hard", "soft"]}}, "focus = 'soft': input should"),
        ({"train.alignment.temperature": {"uniform": [0.01, 1]}}, "temperature = 0.01: input"),
        ({"item_graph.k": {"uniform": [5, 10]}}, "item_graph.k = 6.8394: input should be a valid"),
        ({"seed.x": {"grid": [1]}}, "seed = {'x': 1}: input should be a valid integer"),
        ({"cluster.num_workers": {"grid": [1, 2]}}, "nothing in cluster changes what EGRA learns"),
        ({"evaluation.mask_valid": {"grid": [True]}}, "nothing in evaluation"),
        ({"train.metric": {"grid": ["ndcg_at_10"]}}, "set it by 'metric'"),
        ({"train.model.name": {"grid": ["mgcn"]}}, "search each model by itself"),
    ],
)
def test_what_cannot_be_searched_is_said_before_anything_starts(space, words):
    with pytest.raises(UserError) as caught:
        prepared(space)
    assert str(caught.value).startswith("s.yaml: ")
    assert words in str(caught.value)


def test_an_unknown_metric():
    with pytest.raises(UserError, match="'recall_at_7' is not computed"):
        prepared({"seed": {"choice": [0, 1]}}, metric="recall_at_7")


@pytest.mark.parametrize(
    ("paths", "stage"),
    [
        (["train.alignment.focus"], "merge"),
        (["train.alignment.focus", "item_graph.beta"], "knn"),
        (["item_graph.k"], "pretrain"),
        (["item_graph.source"], "graphs"),
        (["pretrain.batch_size", "train.batch_size"], "graphs"),
        (["feature_graph.k"], "features"),
        (["features.width"], None),
        (["seed"], None),
    ],
)
def test_stages_that_no_trial_changes(paths, stage):
    assert last_shared_stage(paths) == stage
