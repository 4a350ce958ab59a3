import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from egra_dist.config import AlignmentSettings
from egra_dist.model.alignment import alignment_degrees, entity_weights, strength

RAMPS = ["constant", "linear", "cosine", "exponential", "tanh"]


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=40),
    st.sampled_from(["uniform", "hard", "easy"]),
    st.floats(0.05, 5),
)
@settings(max_examples=60, deadline=None)
def test_mean_weight_is_one(degrees, focus, temperature):
    chosen = AlignmentSettings(focus=focus, focus_temperature=temperature)
    weights = entity_weights(torch.tensor(degrees), chosen)
    assert weights.min() >= 0
    assert weights.mean().item() == pytest.approx(1, rel=1e-4)


def test_hard_gives_more_to_the_less_aligned_and_easy_the_reverse():
    degrees = torch.tensor([-0.5, 0.1, 0.9])
    hard = entity_weights(degrees, AlignmentSettings(focus="hard"))
    easy = entity_weights(degrees, AlignmentSettings(focus="easy"))
    assert hard.tolist() == sorted(hard.tolist(), reverse=True)
    assert easy.tolist() == sorted(easy.tolist())
    assert torch.equal(entity_weights(degrees, AlignmentSettings(focus="uniform")), torch.ones(3))


@pytest.mark.parametrize("focus", ["hard", "easy"])
def test_who_has_no_modality_takes_no_weight_from_the_others(focus):
    chosen = AlignmentSettings(focus=focus, focus_temperature=0.1)
    aligned = torch.tensor([0.9, 0.95, 0.85])
    weights = entity_weights(torch.cat([torch.zeros(2), aligned]), chosen)
    assert torch.equal(weights[:2], torch.ones(2))
    torch.testing.assert_close(weights[2:], entity_weights(aligned, chosen))
    assert torch.equal(entity_weights(torch.zeros(3), chosen), torch.ones(3))


@pytest.mark.parametrize("ramp", RAMPS)
def test_strength_never_decreases_and_ends_at_lambda_max(ramp):
    chosen = AlignmentSettings(ramp=ramp, ramp_steps=37, lambda_max=0.03)
    values = [strength(step, chosen) for step in range(60)]
    assert all(later >= earlier for earlier, later in itertools.pairwise(values))
    assert values[0] == (0.03 if ramp == "constant" else 0)
    assert values[37] == values[-1] == pytest.approx(0.03)


def test_degrees_carry_no_gradient():
    side = torch.randn(4, 3, requires_grad=True)
    degrees = alignment_degrees(side, torch.randn(4, 3))
    assert not degrees.requires_grad
    torch.testing.assert_close(
        alignment_degrees(side, 2 * side), torch.ones(4), msg="cosine ignores length"
    )


def test_strength_grows_from_where_it_starts():
    chosen = AlignmentSettings(ramp="linear", ramp_steps=10, lambda_start=0.01, lambda_max=0.03)
    assert strength(0, chosen) == pytest.approx(0.01)
    assert strength(5, chosen) == pytest.approx(0.02)
    assert strength(99, chosen) == pytest.approx(0.03)


def test_strength_cannot_decrease():
    with pytest.raises(ValueError, match=r"lambda_start = 0.05: must not be above lambda_max"):
        AlignmentSettings(lambda_start=0.05, lambda_max=0.03)
