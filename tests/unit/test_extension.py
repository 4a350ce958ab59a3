"""Code of the user's own, named in settings."""

import math
import sys

import pytest

from egra_dist.config import AlignmentSettings, load_config
from egra_dist.errors import UserError
from egra_dist.extension import code_digests, is_own, load_own, own_names
from egra_dist.model.alignment import strength


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of the user's own, of a name that is forgotten at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(name: str, code: str) -> str:
        sys.modules.pop(name, None)
        (tmp_path / f"{name}.py").write_text(code)
        return name

    yield write
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("name", ["ramps:slow", "a.b.c:_f1"])
def test_names_of_own_code(name):
    assert is_own(name)


@pytest.mark.parametrize("name", ["linear", "a:", ":b", "a b:c", "open_clip:ViT-B-32", "a:b:c"])
def test_other_names(name):
    assert not is_own(name)


def test_a_ramp_of_ones_own_is_followed(module):
    module("own_ramps", "def late(progress):\n    return progress**3\n")
    settings = AlignmentSettings(
        ramp="own_ramps:late", ramp_steps=10, lambda_start=0.1, lambda_max=0.3
    )
    values = [strength(step, settings) for step in range(12)]
    expected = [0.1 + 0.2 * min(step / 10, 1) ** 3 for step in range(12)]
    assert all(map(math.isclose, values, expected))


@pytest.mark.parametrize(
    "body", ["1 - progress", "progress / 2", "progress - 0.5", "abs(progress - 0.5) * 2"]
)
def test_a_ramp_that_decreases_or_does_not_end_at_one_is_refused(module, body):
    name = module(f"bad_ramps_{abs(hash(body))}", f"def ramp(progress):\n    return {body}\n")
    with pytest.raises(UserError, match=rf"alignment.ramp {name}:ramp: must never decrease"):
        strength(1, AlignmentSettings(ramp=f"{name}:ramp"))


@pytest.mark.parametrize("setting", ["train.alignment.ramp", "pretrain.model.name"])
def test_a_name_that_is_neither_built_in_nor_ones_own(setting):
    with pytest.raises(UserError) as caught:
        load_config(None, [f"{setting}=linaer"])
    assert f"{setting} = 'linaer': input should be '" in str(caught.value)
    assert "or your own as 'package.module:function'" in str(caught.value)


def test_what_cannot_be_imported_is_said_with_the_place_that_names_it(module):
    module("own_things", "value = 3\n")
    with pytest.raises(UserError, match=r"train\.x own_things:absent: own_things has no function"):
        load_own("own_things:absent", "train.x")
    with pytest.raises(UserError, match="no_such_module:f: cannot be imported: No module named"):
        load_own("no_such_module:f", "train.x")


def test_digests_follow_the_file(module):
    fields = {"a": 1, "b": {"name": "own_code:f", "other": "linear"}}
    assert list(own_names(fields)) == [("b.name", "own_code:f")]
    module("own_code", "def f():\n    return 1\n")
    first = code_digests(fields)
    assert list(first) == ["own_code:f"]
    assert code_digests(fields) == first
    module("own_code", "def f():\n    return 2\n")
    assert code_digests(fields) != first
    assert code_digests({"a": "linear"}) == {}
