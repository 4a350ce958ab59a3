import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egra_dist.train.permutation import PseudorandomPermutation


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**31))
def test_every_number_comes_once(size, seed):
    order = PseudorandomPermutation([seed, 1], size)
    assert np.array_equal(np.sort(order[0:size]), np.arange(size))


def test_parts_are_those_of_the_whole():
    order = PseudorandomPermutation([3, 1], 1000)
    assert np.array_equal(np.concatenate([order[0:300], order[300:2000]]), order[0:1000])
    assert not np.array_equal(order[0:1000], PseudorandomPermutation([3, 2], 1000)[0:1000])


@pytest.mark.parametrize("size", [100, 1 << 16])
def test_neighbors_end_up_far_apart(size):
    """Both like a random permutation: mean distance a third of the size, no correlation."""
    places = PseudorandomPermutation([0], size)[0:size]
    assert np.abs(np.diff(places)).mean() / size == pytest.approx(1 / 3, abs=0.06)
    assert abs(np.corrcoef(places, np.arange(size))[0, 1]) < 0.3
