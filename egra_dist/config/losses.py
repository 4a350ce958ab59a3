"""The losses of a training: ranking, and the alignment of modality and behaviour."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from egra_dist.config.base import (
    NonNegativeFloat,
    NonNegativeInt,
    OneOf,
    PositiveFloat,
    PositiveInt,
    Settings,
)

RAMPS = ("constant", "linear", "cosine", "exponential", "tanh")


class AlignmentSettings(Settings):
    """How modality and behaviour representations are pulled together."""

    focus: Literal["uniform", "hard", "easy"] = "hard"
    """Who gets more weight: everybody the same, the less aligned, or the more aligned."""
    focus_temperature: PositiveFloat = 2.0
    """Temperature of the softmax that turns alignment degrees into entity weights."""
    ramp: Annotated[str, OneOf(RAMPS)] = "linear"
    """How the strength grows from ``lambda_start`` to ``lambda_max``; ``constant``: it is there
    from the first step. Your own: see docs/extend.md."""
    ramp_steps: PositiveInt = 100
    """Number of optimisation steps until the strength reaches ``lambda_max``."""
    lambda_start: NonNegativeFloat = 0
    """Strength of the alignment loss at the first step; not above ``lambda_max``."""
    lambda_max: NonNegativeFloat = 0.01
    """Final strength of the alignment loss."""
    temperature: Annotated[float, Field(ge=0.02)] = 0.2
    """Temperature of the InfoNCE loss; below 0.02 its exponentials leave the range of float32."""
    unique_ids: bool = False
    """Whether an entity that occurs twice in a batch counts once."""

    @model_validator(mode="after")
    def _never_decreases(self) -> "AlignmentSettings":
        if self.lambda_start > self.lambda_max:
            raise ValueError(
                f"alignment.lambda_start = {self.lambda_start}: "
                f"must not be above lambda_max = {self.lambda_max}"
            )
        return self


class RankingSettings(Settings):
    """How a user's items are told from all others."""

    loss: Literal["bpr", "softmax"] = "bpr"
    """One negative per positive (Rendle et al. 2009), or a softmax over sampled items."""
    score: Literal["inner", "cosine"] = "inner"
    """Score of a user and an item: inner product of the final vectors, or their cosine."""
    norm_power: Annotated[float, Field(ge=0, le=1)] = 1.0
    """When items are ranked, final vectors that were trained by their cosine are divided by their
    length to this power: 1 ranks by cosine, 0 by inner product, and what lies between trusts
    items with more interactions, whose vectors are longer, a little more."""
    temperature: Annotated[float, Field(ge=0.02)] = 0.2
    """Temperature of the softmax."""
    num_negatives: NonNegativeInt = 1024
    """Uniform negatives of the softmax beside the batch's positives; at most the batch size."""
    negatives: Literal["seen", "all"] = "seen"
    """Where uniform negatives come from: items with a training interaction, as the papers have it,
    or all. With ``seen`` nothing tells a model that items without interactions are not wanted:
    with a softmax over cosines and modalities, they can fill its rankings."""
    negative_power: Annotated[float, Field(ge=0, le=1)] = 0
    """Negatives are drawn in proportion to an item's training interactions to this power: 0
    uniformly, 1 by popularity. Above 0, items without interactions are never drawn."""
    log_q: bool = True
    """Whether the softmax is corrected for how often each item is sampled."""
