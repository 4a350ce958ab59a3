"""A world small enough for dense matrices in float64, the reference of every model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from egra_dist.config import TrainingSettings
from egra_dist.graph.partition import NodePartition, RowPartition
from egra_dist.model.batch import Losses, Triplets
from egra_dist.model.propagation import PartitionedMatrix
from egra_dist.model.ranking import RankingLoss
from egra_dist.model.recommender import Recommender
from tests.matrices import csr_of

NUM_USERS, NUM_ITEMS, DIM = 7, 9, 8
MISSING = ("text", 4)
"""The modality that an item lacks."""


def partitioned(dense: np.ndarray) -> PartitionedMatrix:
    """The only rank's share of a dense matrix."""
    matrix = csr_of(dense)
    return PartitionedMatrix(matrix, RowPartition.even(dense.shape[1], 1), torch.device("cpu"))


def normalized(interactions: np.ndarray) -> np.ndarray:
    """``N(A) = D^-1/2 A D^-1/2`` of ``A = [[0, R], [R^T, 0]]``."""
    num_users, num_items = interactions.shape
    adjacency = np.block(
        [
            [np.zeros((num_users, num_users)), interactions],
            [interactions.T, np.zeros((num_items, num_items))],
        ]
    )
    degrees = adjacency.sum(1)
    scale = np.divide(1, np.sqrt(degrees), where=degrees > 0, out=np.zeros_like(degrees))
    return scale[:, None] * adjacency * scale


def mean_of_powers(matrix: np.ndarray, embeddings: Tensor, num_layers: int) -> Tensor:
    """``mean_{l=0..L} A^l E``."""
    powers = [np.linalg.matrix_power(matrix, layer) for layer in range(num_layers + 1)]
    return torch.as_tensor(np.mean(powers, axis=0)) @ embeddings


def random_interactions(seed: int) -> np.ndarray:
    """``R [NUM_USERS, NUM_ITEMS]``."""
    return (np.random.default_rng(seed).random((NUM_USERS, NUM_ITEMS)) < 0.4).astype(float)


def _features() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    features = {
        "image": torch.randn(NUM_ITEMS, 6, generator=random),
        "text": torch.randn(NUM_ITEMS, 5, generator=random),
    }
    features[MISSING[0]][MISSING[1]] = 0
    return features


@dataclass
class World:
    """What a model is made of, densely."""

    settings: TrainingSettings
    interactions: np.ndarray = field(default_factory=lambda: random_interactions(0))
    features: dict[str, Tensor] = field(default_factory=_features)

    @property
    def common(self) -> tuple[TrainingSettings, NodePartition, RankingLoss]:
        """The first arguments of every model."""
        nodes = NodePartition(RowPartition.even(NUM_USERS, 1), RowPartition.even(NUM_ITEMS, 1))
        counts = np.concatenate([np.zeros(NUM_USERS), self.interactions.sum(0)])
        ranking = RankingLoss(self.settings.ranking, torch.as_tensor(counts, dtype=torch.float32))
        return self.settings, nodes, ranking

    @property
    def behavior(self) -> np.ndarray:
        """``N(A)``."""
        return normalized(self.interactions)

    def item_graphs(self) -> dict[str, np.ndarray]:
        """Some ``S_m`` of each modality; that of a missing one has no edges."""
        random = np.random.default_rng(2)
        graphs = {name: random.random((NUM_ITEMS, NUM_ITEMS)) for name in self.features}
        graphs[MISSING[0]][MISSING[1]] = graphs[MISSING[0]][:, MISSING[1]] = 0
        return graphs

    def tables(self, user_dim: int = DIM) -> tuple[Tensor, Tensor]:
        """Embeddings of users and items."""
        random = torch.Generator().manual_seed(3)
        users = torch.randn(NUM_USERS, user_dim, generator=random)
        return users.requires_grad_(), torch.randn(
            NUM_ITEMS, DIM, generator=random
        ).requires_grad_()

    def triplets(self) -> Triplets:
        """Positives and negatives as positions; one positive and one negative lack a modality."""
        users = torch.tensor([0, 1, 1, 6, 3])
        positives, negatives = torch.tensor([2, 4, 8, 0, 2]), torch.tensor([1, 1, 4, 5, 7])
        return Triplets(users, positives + NUM_USERS, negatives + NUM_USERS)


def training_step(model: Recommender, tables: Sequence[Tensor], step: int = 3) -> Losses:
    """The losses of the world's batch, their gradients taken."""
    shares = [World(model._settings).triplets()]
    losses = model.losses(model.propagate_batch(*tables, shares), shares, step)
    losses.total.backward()
    return losses


def double(module: nn.Module, values: Any) -> Tensor:
    """A linear layer applied in float64."""
    weight, bias = module.weight.double(), module.bias
    product = torch.as_tensor(values).double() @ weight.T
    return product if bias is None else product + bias.double()
