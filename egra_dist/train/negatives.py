"""Negative items: uniform or by popularity, never one of the user's own."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from egra_dist.graph.csr import Csr
from egra_dist.graph.products import column_counts

_MAX_ROUNDS = 100


class NegativeSampler:
    """Draws items that a user has not interacted with.

    Args:
        training: ``R [num_users, num_items]``, columns ascending within a row.
        pool: Items with a training interaction, or all.
        power: Items are drawn in proportion to their interactions to this power; 0: uniformly.
    """

    def __init__(
        self, training: Csr, pool: Literal["seen", "all"] = "seen", power: float = 0
    ) -> None:
        self._training = training
        counts = column_counts(training)
        self._pool = np.arange(len(counts)) if pool == "all" else np.flatnonzero(counts)
        self._cumulative = np.cumsum(counts[self._pool] ** power) if power > 0 else None

    def draw(self, users: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        """One item for each user, ``[num_users]``; drawn again where the user has it.

        A user who has (nearly) everything may keep one of its own, after many rounds.
        """
        negatives = self._draw(len(users), random)
        for _ in range(_MAX_ROUNDS):
            rejected = np.flatnonzero(has_entry(self._training, users, negatives))
            if len(rejected) == 0:
                break
            negatives[rejected] = self._draw(len(rejected), random)
        return negatives

    def _draw(self, count: int, random: np.random.Generator) -> NDArray[np.int64]:
        if self._cumulative is None:
            return random.choice(self._pool, count)
        drawn = random.random(count) * self._cumulative[-1]
        return self._pool[np.searchsorted(self._cumulative, drawn, side="right")]


def has_entry(
    matrix: Csr, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether the matrix has an entry at each place, ``[num_places]``: a search in each row."""
    if matrix.num_entries == 0:
        return np.zeros(len(rows), dtype=bool)
    low, end = np.array(matrix.indptr[rows]), np.array(matrix.indptr[rows + 1])
    high = end.copy()
    last = matrix.num_entries - 1
    for _ in range(int((high - low).max(initial=0)).bit_length()):
        middle = (low + high) // 2
        is_below = (matrix.indices[np.minimum(middle, last)] < columns) & (low < high)
        low = np.where(is_below, middle + 1, low)
        high = np.where(is_below, high, middle)
    return (low < end) & (matrix.indices[np.minimum(low, last)] == columns)
