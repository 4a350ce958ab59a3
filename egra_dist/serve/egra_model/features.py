"""New items: vectors for items that were not there when the model was trained, by their features.

A new item's vector is the mean of the vectors of the known items that are nearest to it by their
features, each weighted by its similarity. Similarity is the cosine in a modality, averaged over the
modalities that the new item has; a known item that lacks one of them counts as 0 there. Items
without any training interaction are no neighbours: nobody has told their vectors anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import RequestError

NUM_NEIGHBORS = 10
_BLOCK_VALUES = 1 << 22


@dataclass(frozen=True)
class FeatureSpace:
    """What items look, read and sound like.

    Attributes:
        features: Per modality ``float16 [num_items, dim_m]``, rows of length 1, or of 0 where the
            item lacks it; memory-mapped.
        is_known: ``bool [num_items]``: whether an item had training interactions.
    """

    features: Mapping[str, NDArray[np.float16]]
    is_known: NDArray[np.bool_]

    @classmethod
    def open(cls, folder: Path, is_known: NDArray[np.bool_]) -> "FeatureSpace":
        """Opens ``<modality>.npy`` files, memory-mapped; there may be none."""
        files = sorted(folder.glob("*.npy"))
        return cls({file.stem: np.load(file, mmap_mode="r") for file in files}, is_known)

    def vector(
        self, features: Mapping[str, Sequence[float]], vectors: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The vector of a new item.

        Args:
            features: Its features, by modality.
            vectors: Those of the known items, ``[num_items, dim]``.

        Raises:
            RequestError: If a modality is not known, or its features are not such a vector.
        """
        similarities = self.similarities(features)
        similarities[~self.is_known] = -np.inf
        num_neighbors = min(NUM_NEIGHBORS, int(self.is_known.sum()))
        nearest = np.argsort(-similarities, kind="stable")[:num_neighbors]
        weights = np.maximum(similarities[nearest], 0)
        if not weights.any():
            weights = np.ones(num_neighbors)
        mean = (weights / weights.sum()) @ vectors[nearest].astype(np.float64)
        return mean.astype(np.float32)

    def similarities(self, features: Mapping[str, Sequence[float]]) -> NDArray[np.float64]:
        """Mean cosine to every known item, ``float64 [num_items]``."""
        if not features:
            raise RequestError(f"features are empty, must name one of {self._names}")
        total = np.zeros(len(self.is_known))
        for name, values in features.items():
            known = self._modality(name)
            query = _direction(name, values, known.shape[1])
            step = max(1, _BLOCK_VALUES // known.shape[1])
            for start in range(0, len(known), step):
                total[start : start + step] += (
                    known[start : start + step].astype(np.float32) @ query
                )
        return total / len(features)

    @property
    def _names(self) -> str:
        return ", ".join(map(repr, self.features)) or "no modality: the model was exported without"

    def _modality(self, name: str) -> NDArray[np.float16]:
        if name not in self.features:
            raise RequestError(f"features of {name!r}: no such modality; there are {self._names}")
        return self.features[name]


def _direction(name: str, values: Sequence[float], dim: int) -> NDArray[np.float32]:
    """A feature vector at length 1."""
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise RequestError(f"features of {name!r}: must be a list of {dim} numbers") from None
    if vector.shape != (dim,):
        found = f"have shape {list(vector.shape)}"
        raise RequestError(f"features of {name!r}: {found}, must be a list of {dim} numbers")
    length = np.linalg.norm(vector)
    if not np.isfinite(length) or length == 0:
        raise RequestError(f"features of {name!r}: must be finite, and not all 0")
    return (vector / length).astype(np.float32)
