"""Item features and the graphs that are made of them and of pretrained vectors."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from egra_dist.config.base import NonNegativeFloat, PositiveInt, Settings, Share


class FeatureSettings(Settings):
    """What happens to the raw features of every modality before they are used."""

    center: bool = False
    """Whether the mean over the items that have the modality is taken away."""
    whiten: bool = False
    """Whether the columns become uncorrelated with variance 1 (PCA whitening; centres too)."""
    width: PositiveInt | None = None
    """Number of principal components that are kept (PCA; centres too); all columns when not
    given."""
    corrupt_share: Annotated[float, Field(ge=0, le=1)] = 0
    """Share of the items that have a modality whose row is spoilt, drawn for each modality apart:
    for tests of robustness."""
    corrupt_by: Literal["shuffle", "noise", "remove"] = "shuffle"
    """Whether spoilt rows are exchanged among each other, replaced by Gaussian noise of each
    column's mean and deviation, or taken away, so that the item lacks the modality: what knowing
    the spoilt rows would be worth."""

    @property
    def projects(self) -> bool:
        """Whether rows are centred, whitened or shortened."""
        return self.center or self.whiten or self.width is not None

    @property
    def changes_features(self) -> bool:
        """Whether features are used otherwise than as they stand in the catalogue."""
        return self.projects or self.corrupt_share > 0


class FeatureGraphSettings(Settings):
    """The kNN graph over each modality's raw features, for the modality branch."""

    k: Annotated[int, Field(ge=2, le=200)] = 10
    """Neighbours per item, itself among them."""


class ItemGraphSettings(Settings):
    """The item-item graph that is merged into the behaviour graph."""

    source: Literal["pretrained", "raw", "both", "vectors", "none"] = "pretrained"
    """Where neighbours are searched: in the vectors of the pretrained recommender, in the raw
    features of each modality, in both, in vectors of one's own, or nowhere."""
    vectors: Path | None = None
    """Parquet file of one's own item vectors, for ``source: vectors``: columns ``raw_id`` and
    ``vector`` (a list of floats)."""
    combine: Literal["intersection", "union"] = "intersection"
    """How the graphs of several modalities become one: edges that all have (as GUME does), or
    those of largest weighted score."""
    modality_weights: dict[str, NonNegativeFloat] = {}
    """Weight of each modality in a combination; 1 where not given."""
    k: Annotated[int, Field(ge=1, le=200)] = 10
    """Neighbours per item."""
    weight: Literal["binary", "cosine"] = "binary"
    """What an edge counts before normalisation: 1, or the cosine of its two vectors."""
    direction: Literal["directed", "union", "mutual"] = "union"
    """Edges as found, made symmetric by adding the reverse, or kept only where both agree."""
    beta: NonNegativeFloat = 0.2
    """Scale of the item-item block against the user-item block."""
    modality_share: Share = 0
    """Share of these neighbours in the graphs of the modality branch, where each counts as much:
    ``(1 - share) S_m + share S``, ``S_m`` the graph over a modality's raw features."""

    @property
    def is_pretrained(self) -> bool:
        """Whether a recommender has to be trained first."""
        return self.source in ("pretrained", "both")

    @model_validator(mode="after")
    def _vectors_are_named(self) -> "ItemGraphSettings":
        if (self.source == "vectors") != (self.vectors is not None):
            raise ValueError(
                f"item_graph.vectors = {self.vectors}: needed with source 'vectors', and only there"
            )
        return self
