"""Groups by settings apart from the seed, and statistics over common seeds."""

import math

import numpy as np
import pytest
from scipy import stats

from egra_dist.compare.groups import compare, differing, group, holm, summarize
from egra_dist.compare.runs import ComparedRun
from egra_dist.compare.tables import difference_table, short_names

METRIC = "test/recall_at_20"


def run(name, seed, value, **settings):
    settings = {"train.batch_size": "512", **settings}
    return ComparedRun(name, name, str(seed), settings, {METRIC: value}, {})


def runs_of(ramp, values, **settings):
    named = {"train.alignment.ramp": ramp, **settings}
    return [run(f"{ramp}{seed}", seed, value, **named) for seed, value in values.items()]


def test_runs_that_differ_in_seed_and_workers_alone_are_one_group():
    runs = [
        *runs_of("linear", {0: 0.1, 1: 0.2}, **{"cluster.num_workers": "1"}),
        *runs_of("linear", {2: 0.3}, **{"cluster.num_workers": "4"}),
        *runs_of("cosine", {0: 0.4}, **{"cluster.num_workers": "1"}),
    ]
    first, second = group(runs)
    assert differing(runs) == ["train.alignment.ramp", "cluster.num_workers"]
    assert [len(first.runs), len(second.runs)] == [3, 1]
    assert first.settings == {"train.alignment.ramp": "linear"}
    assert summarize(first, METRIC) == (3, pytest.approx(0.2), pytest.approx(0.1))
    assert summarize(second, METRIC) == (1, 0.4, None)
    assert summarize(second, "test/ndcg_at_20") is None


def test_paired_test_over_common_seeds_is_scipys():
    random = np.random.default_rng(0)
    a = dict(enumerate(random.normal(0.2, 0.01, 5)))
    b = {seed: value + random.normal(0.004, 0.003) for seed, value in a.items()} | {9: 0.5}
    reference, other = group([*runs_of("linear", a), *runs_of("cosine", b)])
    found = compare(other, reference, METRIC)
    common = list(a)
    expected = stats.ttest_rel([b[s] for s in common], [a[s] for s in common])
    low, high = expected.confidence_interval(0.95)
    assert found.num_seeds == 5
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.mean - found.half_width, found.mean + found.half_width) == (
        pytest.approx(low),
        pytest.approx(high),
    )


def test_several_runs_of_a_seed_count_once_and_missing_values_not_at_all():
    values = [("linear", 0, 0.1), ("linear", 0, 0.3), ("linear", 1, math.nan)]
    (only,) = group([run(str(i), seed, v, ramp=r) for i, (r, seed, v) in enumerate(values)])
    assert only.by_seed(METRIC) == {"0": pytest.approx(0.2)}


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ({0: 0.1}, {1: 0.2}, None),
        ({0: 0.1}, {0: 0.25}, (1, 0.15, None, None)),
        ({0: 0.5, 1: 0.25}, {0: 0.5, 1: 0.25}, (2, 0.0, 0.0, 1.0)),
    ],
)
def test_too_few_seeds_and_no_difference(a, b, expected):
    reference, other = group([*runs_of("linear", a), *runs_of("cosine", b)])
    found = compare(other, reference, METRIC)
    assert found == (expected if expected is None else pytest.approx(expected))


def test_holm_is_the_step_down_procedure():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None}) == {
        "a": pytest.approx(0.03),
        "b": pytest.approx(0.06),
        "c": pytest.approx(0.06),
        "d": None,
    }


def test_difference_table_names_reference_and_best():
    groups = group([*runs_of("linear", {0: 0.1, 1: 0.2}), *runs_of("cosine", {0: 0.3, 1: 0.5})])
    table = difference_table(groups, groups[0], METRIC)
    cells = [[cell.text for cell in row] for row in table.rows]
    assert cells[0] == ["A", "0.1500 ± 0.0707", "reference", "-", "-"]
    assert cells[1][:2] == ["B", "0.4000 ± 0.1414"]
    assert cells[1][2].startswith("+0.2500 ± ") and cells[1][4] == "2"
    assert [row[1].is_best for row in table.rows] == [False, True]


def test_settings_are_named_as_shortly_as_can_be_told_apart():
    names = ["train.model.dim", "pretrain.model.dim", "item_graph.k", "seed"]
    assert list(short_names(names).values()) == [
        "train.model.dim",
        "pretrain.model.dim",
        "k",
        "seed",
    ]
