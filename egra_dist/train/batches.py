"""Batches of triplets: the same for every number of ranks, shared out equally.

Every rank draws the same global batch from the same seed and takes its part, so that no rank ever
waits for a batch that another does not have, and a step can be drawn again after a restart.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from egra_dist.config import RankingSettings
from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import NodePartition
from egra_dist.model.batch import Triplets
from egra_dist.train.negatives import NegativeSampler
from egra_dist.train.permutation import PseudorandomPermutation

Order = NDArray[np.int64] | PseudorandomPermutation


def written_order(seed: list[int], size: int) -> NDArray[np.int64]:
    """A permutation in memory: 8 bytes for each triplet."""
    return np.random.default_rng(seed).permutation(size)


class TripletBatches:
    """Training interactions in a new order each epoch, each with one negative item.

    A negative is drawn uniformly, or by popularity, from the items seen in training, or from all,
    and not by this user. Interactions stay in the (memory-mapped) matrix.

    Args:
        training: ``R [num_users, num_items]``.
        nodes: Who owns which node; triplets name nodes by position.
        batch_size: Triplets per global batch.
        seed: Seed of orders and negatives.
        device: Where the batches go.
        ranking: Where negatives come from.
        permute: Makes the order of an epoch from its seed and the number of triplets.
    """

    def __init__(
        self,
        training: Csr,
        nodes: NodePartition,
        batch_size: int,
        seed: int,
        device: torch.device,
        ranking: RankingSettings | None = None,
        permute: Callable[[list[int], int], Order] = written_order,
    ) -> None:
        ranking = ranking or RankingSettings()
        self._training = training
        self._negatives = NegativeSampler(training, ranking.negatives, ranking.negative_power)
        self._nodes = nodes
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self._permute = permute

    @property
    def num_triplets(self) -> int:
        """Triplets per epoch."""
        return self._training.num_entries

    @property
    def steps_per_epoch(self) -> int:
        """Global batches per epoch, the last of them smaller."""
        return -(-self.num_triplets // self._batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[list[Triplets]]:
        """Yields each global batch as the shares of the ranks.

        Args:
            epoch: Which one.
            first_step: Batches before are left out.
        """
        order = self._permute([self._seed, epoch], self.num_triplets)
        for step in range(first_step, self.steps_per_epoch):
            chosen = order[step * self._batch_size : (step + 1) * self._batch_size]
            random = np.random.default_rng([self._seed, epoch, step])
            yield self._share_out(chosen, random)

    def _share_out(self, chosen: NDArray[np.int64], random: np.random.Generator) -> list[Triplets]:
        users = np.searchsorted(self._training.indptr, chosen, side="right") - 1
        positives = np.asarray(self._training.indices[chosen], dtype=np.int64)
        negatives = self._negatives.draw(users, random)
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
