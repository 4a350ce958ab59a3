import numpy as np
import pytest

from egra_dist.errors import UserError
from egra_dist.sweep.space import Distribution, load_space, parse_space

RATE = "train.optimizer.learning_rate"


def space(num_samples=1, **distributions):
    given = {path.replace("__", "."): fields for path, fields in distributions.items()}
    return parse_space({"space": given, "num_samples": num_samples, "seed": 3}, "s.yaml")


def draws(num_draws=4000, **fields):
    random = np.random.default_rng(0)
    distribution = Distribution(**fields)
    return [distribution.draw(random) for _ in range(num_draws)]


def test_draws_fill_their_range_evenly():
    uniform = draws(uniform=[2, 6])
    assert 2 <= min(uniform) < 2.1 and 5.9 < max(uniform) <= 6
    assert np.mean(uniform) == pytest.approx(4, abs=0.1)
    logarithmic = np.log10(draws(log_uniform=[0.001, 0.1]))
    assert -3 <= min(logarithmic) < -2.9 and -1.1 < max(logarithmic) <= -1
    assert np.mean(logarithmic) == pytest.approx(-2, abs=0.05)
    assert set(draws(integer=[1, 3])) == {1, 2, 3}
    assert set(draws(choice=["easy", "hard"])) == {"easy", "hard"}


def test_drawn_values_can_be_read():
    assert all(len(repr(value)) <= 12 for value in draws(log_uniform=[1e-5, 1]))
    assert all(type(value) is int for value in draws(integer=[1, 3]))


def test_more_samples_only_add_trials():
    distributions = {"a__b": {"uniform": [0, 1]}, "c": {"integer": [1, 1000]}}
    few, many = space(3, **distributions).trials(), space(9, **distributions).trials()
    assert len(few) == 3
    assert many[:3] == few
    assert len({trial["a.b"] for trial in many}) == 9


def test_the_order_of_settings_in_the_file_does_not_matter():
    one = space(2, a={"uniform": [0, 1]}, b={"uniform": [0, 1]}).trials()
    other = space(2, b={"uniform": [0, 1]}, a={"uniform": [0, 1]}).trials()
    assert one == other


def test_every_combination_of_grids_is_tried_with_every_draw():
    found = space(2, a={"grid": [5, 10]}, b={"grid": ["x", "y", "z"]}, c={"uniform": [0, 1]})
    trials = found.trials()
    assert len(trials) == 12
    first = {trial["c"] for trial in trials[:6]}
    assert len(first) == 1
    assert {(trial["a"], trial["b"]) for trial in trials[:6]} == {
        (a, b) for a in (5, 10) for b in "xyz"
    }


def test_equal_trials_are_one():
    assert len(space(50, a={"choice": [1, 2, 3]}).trials()) == 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "space: is needed and not given"),
        ({"space": {}}, "at least 1"),
        ({"space": {RATE: 3}}, f"space.{RATE} = 3: expected e.g. {{choice"),
        ({"space": {RATE: {"unifrom": [0, 1]}}}, "'unifrom'; did you mean 'uniform'?"),
        ({"space": {"history.shares": {"grid": [[0.5]]}}}, "histories count after the training"),
        ({"space": {RATE: {}}}, f"space.{RATE}: expected exactly one of choice, grid"),
        ({"space": {RATE: {"uniform": [0, 1], "grid": [1]}}}, "expected exactly one of"),
        ({"space": {RATE: {"uniform": [1, 0]}}}, "uniform = [1.0, 0.0]: the first must be"),
        ({"space": {RATE: {"log_uniform": [0, 1]}}}, "must be greater than 0"),
        ({"space": {RATE: {"integer": [1, 2.5]}}}, f"space.{RATE}: integer.1 = 2.5: "),
        ({"space": {RATE: {"choice": []}}}, "at least 1"),
        ({"space": {RATE: {"grid": [1]}}, "num_sample": 2}, "did you mean 'num_samples'?"),
        ({"space": {RATE: {"grid": [1]}}, "scheduler": {"name": "asah"}}, "'asha' or 'none'"),
    ],
)
def test_mistakes_name_the_key_and_what_is_allowed(fields, words):
    with pytest.raises(UserError) as caught:
        parse_space(fields, "s.yaml")
    assert str(caught.value).startswith("s.yaml: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files(tmp_path):
    file = tmp_path / "s.yaml"
    with pytest.raises(UserError, match="no such search space"):
        load_space(file)
    file.write_text("[")
    with pytest.raises(UserError, match="not a readable YAML file"):
        load_space(file)
    file.write_text("space: {a: {grid: [1]}}\nnum_samples: 2")
    assert load_space(file).num_samples == 2
    assert load_space(file, num_samples=5).num_samples == 5
