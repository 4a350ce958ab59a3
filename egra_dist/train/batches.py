"""Batches of triplets: the same for every number of ranks, shared out equally.

Every rank draws the same global batch from the same seed and takes its part, so that no rank ever
waits for a batch that another does not have, and a step can be drawn again after a restart.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import NodePartition
from egra_dist.model.recommender import Triplets

_MAX_ROUNDS = 100


class TripletBatches:
    """Training interactions in a new order each epoch, each with one negative item.

    A negative is drawn uniformly from the items seen in training, or from all, and not by this
    user.

    Args:
        training: ``R [num_users, num_items]``.
        nodes: Who owns which node; triplets name nodes by position.
        batch_size: Triplets per global batch.
        seed: Seed of orders and negatives.
        device: Where the batches go.
        negatives: Where negatives come from.
    """

    def __init__(
        self,
        training: Csr,
        nodes: NodePartition,
        batch_size: int,
        seed: int,
        device: torch.device,
        negatives: Literal["seen", "all"] = "seen",
    ) -> None:
        self._users = np.repeat(np.arange(training.num_rows), np.diff(training.indptr))
        self._items = np.asarray(training.indices, dtype=np.int64)
        self._num_items = training.num_columns
        self._pairs = self._users * self._num_items + self._items
        is_all = negatives == "all"
        self._pool = np.arange(self._num_items) if is_all else np.unique(self._items)
        self._nodes = nodes
        self._batch_size = batch_size
        self._seed = seed
        self._device = device

    @property
    def num_triplets(self) -> int:
        """Triplets per epoch."""
        return len(self._users)

    @property
    def steps_per_epoch(self) -> int:
        """Global batches per epoch, the last of them smaller."""
        return -(-self.num_triplets // self._batch_size)

    def epoch(self, epoch: int) -> Iterator[list[Triplets]]:
        """Yields each global batch as the shares of the ranks."""
        order = np.random.default_rng([self._seed, epoch]).permutation(self.num_triplets)
        for step in range(self.steps_per_epoch):
            chosen = order[step * self._batch_size : (step + 1) * self._batch_size]
            random = np.random.default_rng([self._seed, epoch, step])
            yield self._share_out(chosen, random)

    def _share_out(self, chosen: NDArray[np.int64], random: np.random.Generator) -> list[Triplets]:
        users, positives = self._users[chosen], self._items[chosen]
        negatives = self._draw_negatives(users, random)
        columns = (
            self._nodes.position_of_users(users),
            self._nodes.position_of_items(positives),
            self._nodes.position_of_items(negatives),
        )
        num_ranks = self._nodes.users.num_ranks
        parts = [np.array_split(column, num_ranks) for column in columns]
        return [
            Triplets(*(torch.as_tensor(part, device=self._device) for part in share))
            for share in zip(*parts, strict=True)
        ]

    def _draw_negatives(
        self, users: NDArray[np.int64], random: np.random.Generator
    ) -> NDArray[np.int64]:
        negatives = random.choice(self._pool, len(users))
        for _ in range(_MAX_ROUNDS):
            rejected = np.flatnonzero(self._is_positive(users, negatives))
            if len(rejected) == 0:
                break
            negatives[rejected] = random.choice(self._pool, len(rejected))
        return negatives

    def _is_positive(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        pairs = users * self._num_items + items
        places = np.minimum(np.searchsorted(self._pairs, pairs), len(self._pairs) - 1)
        return self._pairs[places] == pairs
