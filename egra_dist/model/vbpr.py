"""VBPR: matrix factorisation with a second, visual half (He & McAuley, AAAI 2016)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from egra_dist.config import TrainingSettings
from egra_dist.graph.partition import NodePartition
from egra_dist.model.batch import Propagated
from egra_dist.model.features import Projection
from egra_dist.model.ranking import RankingLoss
from egra_dist.model.recommender import Recommender


class Vbpr(Recommender):
    """``score(u, i) = <gamma_u, gamma_i> + <theta_u, sum_m W_m x_i>`` (equation 4, no biases).

    The user table is twice as wide as the item table: ``gamma`` and ``theta`` side by side. The
    paper has one modality, the image; ours adds up the projections of all (as MMRec's does, whose
    one projection of all features side by side is the same sum). There is a regularisation of
    final vectors in place of the paper's of parameters, and no visual bias.

    Args:
        settings: Model and regularisation.
        nodes: Who owns which user and item.
        ranking: The ranking loss.
        features: Per modality this rank's rows ``[num_own_items, dim_m]``.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        nodes: NodePartition,
        ranking: RankingLoss,
        features: Mapping[str, Tensor],
    ) -> None:
        super().__init__(settings, nodes, ranking)
        self.projection = Projection(features, settings.model.dim)

    def propagate(self, users: Tensor, items: Tensor) -> Propagated:
        """Nothing travels: ``gamma`` and ``theta``; see :meth:`Recommender.propagate`."""
        gamma, theta = users.split(users.shape[1] // 2, dim=1)
        seen = torch.stack(list(self.projection().values())).sum(0)
        return Propagated(torch.cat([gamma, items]), torch.cat([theta, seen]))

    def fuse(self, rows: Propagated) -> tuple[Tensor | None, Tensor]:
        """Both halves side by side, ``[num_rows, 2 * dim]``."""
        assert rows.modalities is not None
        return None, torch.cat([rows.behavior, rows.modalities], dim=1)
