"""The model of a training: what it is made of, and what follows from its name."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from egra_dist.config.base import (
    NonNegativeFloat,
    NonNegativeInt,
    OneOf,
    PositiveInt,
    Settings,
    Share,
)
from egra_dist.extension import is_own

MODELS = ("lightgcn", "vbpr", "bm3", "freedom", "mgcn", "gume", "egra")
ModelName = Annotated[str, OneOf(MODELS)]


class FreedomSettings(Settings):
    """What only FREEDOM has."""

    edge_dropout: Share = 0.8
    """Share of the interactions that an epoch leaves out of the behaviour graph."""
    item_layers: PositiveInt = 1
    """Propagation layers over the frozen item graph."""
    modality_weights: dict[str, NonNegativeFloat] = {}
    """Weight of each modality's feature graph; 1 where not given."""
    modality_loss: NonNegativeFloat = 1e-3
    """Weight of the ranking loss between users and projected features."""


class Bm3Settings(Settings):
    """What only BM3 has."""

    dropout: Share = 0.5
    """Share of a target that is dropped."""
    modality_loss: NonNegativeFloat = 2.0
    """Weight of the losses between modalities and behaviour."""


class ModelSettings(Settings):
    """A model is a set of parts: which graph it propagates on, and whether it sees modalities."""

    name: ModelName = "egra"
    """EGRA; MGCN and GUME, which are EGRA with other graphs and a fixed alignment; LightGCN, its
    behaviour branch; VBPR, FREEDOM and BM3, which are models of their own. Your own:
    see docs/extend.md."""
    dim: Annotated[int, Field(ge=4, multiple_of=4)] = 64
    """Width of all representations (a multiple of 4, as FBGEMM's kernels need)."""
    num_layers: NonNegativeInt = 2
    """Propagation layers over the behaviour graph."""
    modalities: list[str] | None = None
    """Modalities used; all of the catalogue's when not given."""

    fusion: Literal["sum", "normalized"] = "sum"
    """How behaviour and modalities become one: ``H + side_weight * Side``, or the same of vectors
    of length 1 (with a softmax over cosines nothing else makes ``Side`` grow beside ``H``)."""
    side_weight: NonNegativeFloat = 1.0
    """Weight of what modalities say."""
    modality_dropout: Share = 0
    """Share of the batch's rows that lose a modality, drawn for each modality apart."""
    freedom: FreedomSettings = FreedomSettings()
    bm3: Bm3Settings = Bm3Settings()

    @property
    def user_dim(self) -> int:
        """Width of the user table: VBPR's users hold a second half for what items look like."""
        return 2 * self.dim if self.name == "vbpr" else self.dim

    @property
    def uses_modalities(self) -> bool:
        """Whether the model has a modality branch."""
        return self.name != "lightgcn"

    def seen_of(self, modalities: Iterable[str]) -> tuple[str, ...]:
        """Those of a catalogue's modalities that the model sees."""
        chosen = modalities if self.modalities is None else self.modalities
        return tuple(chosen) if self.uses_modalities else ()

    @property
    def needs_modalities(self) -> bool:
        """Whether the model is nothing without a modality."""
        return self.name in ("vbpr", "freedom", "bm3")

    @property
    def can_be_sampled(self) -> bool:
        """Whether it can be trained on sampled neighbourhoods."""
        return self.name in ("lightgcn", "mgcn", "gume", "egra")

    @property
    def uses_item_graph(self) -> bool:
        """Whether item-item edges are merged into the behaviour graph."""
        return self.name in ("egra", "gume") or is_own(self.name)
