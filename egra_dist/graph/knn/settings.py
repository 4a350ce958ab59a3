"""What a user may say about a k-nearest-neighbour graph."""

from typing import Annotated, Literal

from pydantic import Field

from egra_dist.config import NonNegativeInt, Settings

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
    seed: NonNegativeInt = 0
