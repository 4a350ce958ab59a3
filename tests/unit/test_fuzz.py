"""A share of `tests/benchmarks/fuzz.py`, always the same inputs."""

import pytest

from tests.fuzz_targets import TARGETS
from tests.fuzzing import fuzz

NUM_INPUTS = 80


@pytest.mark.parametrize("name", TARGETS)
def test_only_clean_errors(name):
    assert fuzz(TARGETS[name], NUM_INPUTS) >= NUM_INPUTS // 2


def test_a_reader_that_fails_otherwise_is_found():
    from hypothesis import strategies as st

    from tests.fuzzing import Target

    with pytest.raises(ZeroDivisionError):
        fuzz(Target(st.integers(0, 3), lambda content, folder: 1 // content), NUM_INPUTS)
