"""The best items of vectors: found by an index, scored exactly, what is left out left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_ITEM = -1
_MARGIN = 16
"""Items fetched beyond those wanted, so that rounding can seldom hide one of the best."""
_MAX_VALUES = 1 << 22
"""Values of candidate vectors that are held at once."""


@dataclass(frozen=True)
class Best:
    """The best items of some vectors.

    Attributes:
        items: ``int64 [num_vectors, k]``, best first, of equal scores the lower first; -1 where
            there are no more.
        scores: ``float64 [num_vectors, k]``; ``-inf`` where there is no item.
    """

    items: NDArray[np.int64]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Ranker:
    """Ranks items by inner product.

    Attributes:
        vectors: ``float32 [num_items, dim]``, memory-mapped or not.
        index: A faiss index of them. What a flat one finds is exactly the best; of another kind
            that is likely, and scores and order are exact all the same.
    """

    vectors: NDArray[np.float32]
    index: Any

    def best(
        self, queries: NDArray[np.float32], left_out: Sequence[NDArray[np.integer]], k: int
    ) -> Best:
        """The best items.

        Args:
            queries: ``float32 [num_vectors, dim]``.
            left_out: The items that each vector is not to get.
            k: Items per vector.
        """
        result = Best(
            np.full((len(queries), k), NO_ITEM, np.int64), np.full((len(queries), k), -np.inf)
        )
        wanted = k + np.fromiter(map(len, left_out), np.int64, len(left_out))
        sizes = np.int64(1) << np.ceil(np.log2(wanted + _MARGIN)).astype(np.int64)
        for size in np.unique(sizes):
            rows = np.flatnonzero(sizes == size)
            step = max(1, _MAX_VALUES // (int(size) * self.vectors.shape[1]))
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                found = self._search(queries[part], [left_out[row] for row in part], int(size), k)
                result.items[part], result.scores[part] = found.items, found.scores
        return result

    def _search(
        self, queries: NDArray[np.float32], left_out: list[NDArray[np.integer]], size: int, k: int
    ) -> Best:
        num_items = len(self.vectors)
        while True:
            size = min(size, num_items)
            rounded, found = self.index.search(queries, size)
            best = self._finish(queries, found, left_out, k)
            if size == num_items or not self._is_flat:
                return best
            norms = np.linalg.norm(queries, axis=1) * self._largest_norm
            if (best.scores[:, -1] > rounded[:, -1] + self._roundoff * norms).all():
                return best
            size *= 2

    def _finish(
        self,
        queries: NDArray[np.float32],
        found: NDArray[np.int64],
        left_out: list[NDArray[np.integer]],
        k: int,
    ) -> Best:
        """Exact scores of what was found, in order."""
        found = np.sort(found, axis=1)
        scores = exact_dot(queries[:, None, :], self.vectors[np.maximum(found, 0)])
        counts = [len(items) for items in left_out]
        keys = np.repeat(np.arange(len(queries)), counts) * len(self.vectors)
        keys += np.concatenate(left_out) if left_out else 0
        own = np.arange(len(queries))[:, None] * len(self.vectors) + found
        scores[(found < 0) | np.isin(own, keys)] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = Best(
            np.full((len(queries), k), NO_ITEM, np.int64), np.full((len(queries), k), -np.inf)
        )
        width = order.shape[1]
        best.scores[:, :width] = np.take_along_axis(scores, order, 1)
        items = np.take_along_axis(found, order, 1)
        best.items[:, :width] = np.where(np.isinf(best.scores[:, :width]), NO_ITEM, items)
        return best

    @cached_property
    def _is_flat(self) -> bool:
        return type(self.index).__name__ == "IndexFlatIP"

    @cached_property
    def _largest_norm(self) -> float:
        return float(np.linalg.norm(self.vectors, axis=1).max(initial=0))

    @property
    def _roundoff(self) -> float:
        """Bound of the error of a float32 inner product against the norms (Higham, 3.1)."""
        return 1.01 * (self.vectors.shape[1] + 6) * 2.0**-24


def exact_dot(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """Inner products over the last dimension, the same to the last bit wherever computed.

    Products of float32 values are exact in float64, and halves are added elementwise: the same
    definition of a score as in the evaluation.

    Args:
        left: ``float32 [..., dim]``.
        right: ``float32 [..., dim]``.

    Returns:
        ``float64 [...]``.
    """
    products = left.astype(np.float64) * right
    while products.shape[-1] > 1:
        half = products.shape[-1] // 2
        folded = products[..., :half] + products[..., half : 2 * half]
        odd = products[..., 2 * half :]
        products = np.concatenate([folded, odd], -1) if odd.shape[-1] else folded
    result: NDArray[np.float64] = products[..., 0]
    return result
