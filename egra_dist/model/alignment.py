"""Bi-level dynamic alignment weights: per entity, and over the training (METHOD, stage 3).

Which entities get more weight and how the strength grows is our reading of the paper; each choice
is a named switch.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from egra_dist.config import AlignmentSettings


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

    ``hard``: ``softmax(-a / T)``, less aligned gets more; ``easy``: ``softmax(a / T)``.

    Args:
        degrees: ``[num_entities]``, see :func:`alignment_degrees`.
        settings: Focus and its temperature ``T``.

    Returns:
        ``[num_entities]``.
    """
    if settings.focus == "uniform":
        return torch.ones_like(degrees)
    sign = -1.0 if settings.focus == "hard" else 1.0
    return len(degrees) * torch.softmax(sign * degrees / settings.focus_temperature, dim=0)


def strength(step: int, settings: AlignmentSettings) -> float:
    """``lambda_t``, the strength of the alignment loss at a global step; never decreases.

    Args:
        step: Optimisation steps done so far.
        settings: The ramp, its length in steps, ``lambda_start`` and ``lambda_max``.
    """
    if settings.ramp == "constant":
        return settings.lambda_max
    progress = min(step / settings.ramp_steps, 1.0)
    share = {
        "linear": progress,
        "cosine": 0.5 * (1 - math.cos(math.pi * progress)),
        "exponential": (1 - math.exp(-5 * progress)) / (1 - math.exp(-5)),
        "tanh": math.tanh(3 * progress) / math.tanh(3),
    }
    growth = settings.lambda_max - settings.lambda_start
    return settings.lambda_start + growth * share[settings.ramp]
