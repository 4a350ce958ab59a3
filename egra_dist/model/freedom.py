"""FREEDOM: a frozen item graph and a thinned behaviour graph (Zhou & Shen, ACM MM 2023)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from egra_dist.config import TrainingSettings, modality_shares
from egra_dist.graph.partition import NodePartition
from egra_dist.model.batch import Batch, Propagated
from egra_dist.model.features import Projection, is_there, with_users
from egra_dist.model.losses import bpr
from egra_dist.model.propagation import PartitionedMatrix, mean_of_layers
from egra_dist.model.ranking import RankingLoss
from egra_dist.model.recommender import Recommender, Weighted
from egra_dist.model.stacked import stacked


class Freedom(Recommender):
    """``final_u = H_u``, ``final_i = H_i + S^L E_i``, ``S`` the weighted sum of feature graphs.

    Each epoch propagates over a sample of the edges, each kept with a chance that falls with the
    degrees of its ends; evaluation uses them all.

    Where this differs from the authors' code: features stay as they are (there they are trained
    too); ``S`` may have any number of modalities, by default with equal weights (there 0.1 for the
    image and 0.9 for the text); ``regularization`` applies as to every model (there is none);
    a triplet counts for a modality's loss only if both of its items have that modality.

    Args:
        settings: Model and regularisation.
        nodes: Who owns which user and item.
        ranking: The ranking loss.
        behavior_graph: ``N(A)``, this rank's rows.
        item_graphs: Per modality ``S_m``, the normalised kNN graph over its features.
        features: Per modality this rank's rows ``[num_own_items, dim_m]``.
        sample_graph: ``N(A)`` of the edges that an epoch keeps.

    Raises:
        UserError: If there is no modality, a weight is given to one that there is not, or all
            weights are 0.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        nodes: NodePartition,
        ranking: RankingLoss,
        behavior_graph: PartitionedMatrix,
        item_graphs: Mapping[str, PartitionedMatrix],
        features: Mapping[str, Tensor],
        sample_graph: Callable[[int], PartitionedMatrix],
    ) -> None:
        super().__init__(settings, nodes, ranking)
        self._behavior_graph = behavior_graph
        self._item_graphs = dict(item_graphs)
        self._sample_graph = sample_graph
        self._sampled = behavior_graph
        self.projection = Projection(features, settings.model.dim)
        weights = settings.model.freedom.modality_weights
        self._shares = modality_shares(weights, list(item_graphs), "model.freedom")

    def start_epoch(self, epoch: int) -> None:
        """Draws the edges of an epoch."""
        if self._settings.model.freedom.edge_dropout > 0:
            self._sampled = self._sample_graph(epoch)

    def propagate(self, users: Tensor, items: Tensor) -> Propagated:
        """Behaviour with the item graph's part added, and ``x'_m`` of the items."""
        graph = self._sampled if torch.is_grad_enabled() else self._behavior_graph
        embeddings = stacked(users, items)
        behavior = mean_of_layers(graph, embeddings, self._settings.model.num_layers)
        latent = items
        for _ in range(self._settings.model.freedom.item_layers):
            latent = self._neighbors(latent)
        with_items = torch.cat([torch.zeros_like(users), latent])
        return Propagated(behavior + with_items, with_users(self.projection(), len(users)))

    def _neighbors(self, items: Tensor) -> Tensor:
        products = [
            share * (self._item_graphs[name] @ items)
            for name, share in self._shares.items()
            if share > 0
        ]
        return torch.stack(products).sum(0)

    def fuse(self, rows: Propagated) -> tuple[Tensor | None, Tensor]:
        """The behaviour representation alone: features only help to train it."""
        return None, rows.behavior

    def own_losses(self, batch: Batch) -> dict[str, Weighted]:
        """BPR of users against the projected features of each modality."""
        assert batch.propagated.modalities is not None
        users, _, _ = batch.parts(batch.rows.behavior)
        _, positives, negatives = batch.parts(batch.propagated.modalities)
        views = zip(
            positives.split(users.shape[1], dim=1),
            negatives.split(users.shape[1], dim=1),
            strict=True,
        )
        losses = [
            bpr((users * own).sum(1), (users * other).sum(1)) * is_there(own) * is_there(other)
            for own, other in views
        ]
        total = torch.stack(losses).sum() / batch.size
        return {"modality": (self._settings.model.freedom.modality_loss, total)}
