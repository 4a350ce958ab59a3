"""BM3: bootstrapped representations, without negatives (Zhou et al., WWW 2023)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from egra_dist.config import TrainingSettings
from egra_dist.graph.partition import NodePartition
from egra_dist.model.batch import Batch, Propagated
from egra_dist.model.dropout import keep_mask
from egra_dist.model.features import Projection, is_there, with_users
from egra_dist.model.propagation import PartitionedMatrix, mean_of_layers
from egra_dist.model.ranking import RankingLoss
from egra_dist.model.recommender import Recommender, Weighted
from egra_dist.model.stacked import stacked


class Bm3(Recommender):
    """Online representations predict dropped-out targets of the other side and modality.

    Where this differs from the authors' code: features stay as they are (there they are trained
    too); an item that lacks a modality adds nothing to that modality's losses; masks are drawn for
    each row of the batch (there for each user and item); ``regularization`` applies to the squared
    norm of the batch's rows (there to the norm of both whole tables).

    Args:
        settings: Model and regularisation.
        nodes: Who owns which user and item.
        ranking: Not used: there are no negatives.
        behavior_graph: ``N(A)``, this rank's rows.
        features: Per modality this rank's rows ``[num_own_items, dim_m]``.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        nodes: NodePartition,
        ranking: RankingLoss,
        behavior_graph: PartitionedMatrix,
        features: Mapping[str, Tensor],
    ) -> None:
        super().__init__(settings, nodes, ranking)
        self._behavior_graph = behavior_graph
        self.projection = Projection(features, settings.model.dim)
        self.predictor = nn.Linear(settings.model.dim, settings.model.dim)

    def propagate(self, users: Tensor, items: Tensor) -> Propagated:
        """LightGCN with the items' embeddings added, and ``x'_m`` of the items."""
        embeddings = stacked(users, items)
        behavior = mean_of_layers(self._behavior_graph, embeddings, self._settings.model.num_layers)
        residual = torch.cat([torch.zeros_like(users), items])
        return Propagated(behavior + residual, with_users(self.projection(), len(users)))

    def fuse(self, rows: Propagated) -> tuple[Tensor | None, Tensor]:
        """The online representation, ``predictor(H)``."""
        return None, self.predictor(rows.behavior)

    def ranking_loss(self, batch: Batch) -> Tensor:
        """Users predict their items and items their users."""
        users, items, _ = batch.parts(batch.rows.fused)
        target_users, target_items, _ = batch.parts(batch.propagated.behavior)
        predicted = _distance(users, self._dropped(target_items, batch, 0))
        predicted = predicted + _distance(items, self._dropped(target_users, batch, 1))
        return predicted.sum() / batch.size

    def own_losses(self, batch: Batch) -> dict[str, Weighted]:
        """Modalities predict the item and their own dropped-out copy."""
        assert batch.propagated.modalities is not None
        _, target, _ = batch.parts(batch.propagated.behavior)
        target = self._dropped(target, batch, 0)
        _, views, _ = batch.parts(batch.propagated.modalities)
        total = views.new_zeros(())
        for number, view in enumerate(views.split(target.shape[1], dim=1)):
            online = self.predictor(view)
            distances = _distance(online, target)
            distances = distances + _distance(online, self._dropped(view, batch, 2 + number))
            total = total + (distances * is_there(view)).sum()
        return {"modality": (self._settings.model.bm3.modality_loss, total / batch.size)}

    def squared_norm(self, batch: Batch) -> Tensor:
        """That of the representations before the predictor."""
        users, items, _ = batch.parts(batch.propagated.behavior)
        return 0.5 * (users.square().sum() + items.square().sum()) / batch.size

    def _dropped(self, target: Tensor, batch: Batch, number: int) -> Tensor:
        """A target without gradient; the mask is the same for every number of ranks."""
        share = self._settings.model.bm3.dropout
        sizes = [len(one) for one in batch.shares]
        device, width = target.device, target.shape[1]
        kept = keep_mask(sizes, width, share, batch.step, number, device, self.seed)
        return target.detach() * kept / (1 - share)


def _distance(online: Tensor, target: Tensor) -> Tensor:
    """``1 - cos``, ``[num_rows]``."""
    return 1 - functional.cosine_similarity(online, target, dim=1)
