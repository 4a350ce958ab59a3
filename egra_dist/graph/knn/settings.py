"""What a user may say about a k-nearest-neighbour graph."""

from typing import Annotated, Literal

from pydantic import Field

from egra_dist.config.base import NonNegativeFloat, PositiveInt, Seed, Settings

Metric = Literal["cosine", "inner_product", "l2"]


class KnnSettings(Settings):
    """A k-nearest-neighbour graph over the rows of a table of vectors."""

    k: Annotated[int, Field(ge=1, le=200)] = 10
    """Neighbours per row, the row itself excluded."""
    metric: Metric = "cosine"
    """Similarity; the score of ``l2`` is the negative squared distance."""
    method: Literal["auto", "exact", "routed"] = "auto"
    """All pairs, or the routed self-join; ``auto`` predicts the cost of both."""
    recall: Annotated[float, Field(gt=0, le=1)] = 0.98
    """Share of true neighbours that the routed self-join must find, measured on a sample."""
    seed: Seed = 0
    """Decides the lists and the audited sample; the same seed gives the same graph."""
    list_size: PositiveInt | None = None
    """Rows per list of the routed self-join, about; chosen when not given."""
    probes: PositiveInt | None = None
    """Lists every row visits; as many as it needs for the recall when not given."""
    audit_rows: PositiveInt = 2000
    """Rows whose exact neighbours are computed to measure the recall."""
    exact_seconds: NonNegativeFloat = 20.0
    """``auto`` is exact while it costs no more core seconds than this."""
