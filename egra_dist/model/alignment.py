"""Bi-level dynamic alignment weights: per entity, and over the training (METHOD, stage 3).

Which entities get more weight and how the strength grows is our reading of the paper; each choice
is a named switch.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from egra_dist.config import AlignmentSettings
from egra_dist.errors import UserError
from egra_dist.extension import load_own

Ramp = Callable[[float], float]
"""Share of the growth that is there at a progress between 0 and 1; never decreases."""
_CHECKED = 100


def alignment_degrees(side: Tensor, behavior: Tensor) -> Tensor:
    """``a_e = cos(Side_e, H_e)``, detached.

    Args:
        side: Modality representations ``[num_entities, dim]``.
        behavior: Behaviour representations ``[num_entities, dim]``.

    Returns:
        ``[num_entities]`` in [-1, 1].
    """
    return functional.cosine_similarity(side.detach(), behavior.detach(), dim=1)


def entity_weights(degrees: Tensor, settings: AlignmentSettings) -> Tensor:
    """``w_e``: who gets more of the alignment loss; the mean is 1.

    ``hard``: ``softmax(-a / T)``, less aligned gets more; ``easy``: ``softmax(a / T)``. An entity
    that no modality reaches cannot be aligned: it gets 1 and takes nothing from the others.

    Args:
        degrees: ``[num_entities]``, see :func:`alignment_degrees`; 0 where there is no modality.
        settings: Focus and its temperature ``T``.

    Returns:
        ``[num_entities]``.
    """
    if settings.focus == "uniform":
        return torch.ones_like(degrees)
    sign = -1.0 if settings.focus == "hard" else 1.0
    is_aligned = degrees != 0
    logits = (sign * degrees / settings.focus_temperature).masked_fill(~is_aligned, -torch.inf)
    weights = is_aligned.sum() * torch.softmax(logits, dim=0)
    return torch.where(is_aligned, weights, 1.0)


def strength(step: int, settings: AlignmentSettings) -> float:
    """``lambda_t``, the strength of the alignment loss at a global step; never decreases.

    Args:
        step: Optimisation steps done so far.
        settings: The ramp, its length in steps, ``lambda_start`` and ``lambda_max``.

    Raises:
        UserError: If a ramp of the user's own cannot be loaded, or decreases.
    """
    if settings.ramp == "constant":
        return settings.lambda_max
    progress = min(step / settings.ramp_steps, 1.0)
    growth = settings.lambda_max - settings.lambda_start
    return settings.lambda_start + growth * _ramp(settings.ramp)(progress)


_RAMPS: dict[str, Ramp] = {
    "linear": lambda progress: progress,
    "cosine": lambda progress: 0.5 * (1 - math.cos(math.pi * progress)),
    "exponential": lambda progress: (1 - math.exp(-5 * progress)) / (1 - math.exp(-5)),
    "tanh": lambda progress: math.tanh(3 * progress) / math.tanh(3),
}


@cache
def _ramp(name: str) -> Ramp:
    """The ramp of that name, the user's own among them, which is checked once."""
    if name in _RAMPS:
        return _RAMPS[name]
    ramp = load_own(name, "alignment.ramp")
    shares = [ramp(step / _CHECKED) for step in range(_CHECKED + 1)]
    if shares[0] < 0 or shares != sorted(shares) or not math.isclose(shares[-1], 1):
        raise UserError(
            f"alignment.ramp {name}: must never decrease, from 0 or more at progress 0 to 1 at 1"
        )
    return ramp
