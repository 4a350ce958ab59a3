"""EGRA: behaviour on the merged graph, modalities beside it, the two aligned (METHOD, stage 3).

MGCN is the same model without item-item edges and with uniform, constant alignment; GUME the same
with item-item edges from raw features; LightGCN is the behaviour branch alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from egra_dist.config import TrainingSettings
from egra_dist.graph.partition import NodePartition
from egra_dist.model import alignment
from egra_dist.model.batch import Batch, Propagated, Representations, Triplets
from egra_dist.model.contrast import Aligned, align
from egra_dist.model.dropout import keep_mask
from egra_dist.model.modality import ModalityBranch
from egra_dist.model.propagation import PartitionedMatrix, mean_of_layers
from egra_dist.model.ranking import RankingLoss
from egra_dist.model.recommender import Recommender, Weighted
from egra_dist.model.selected import Selection, by_kind
from egra_dist.model.stacked import stacked
from egra_dist.model.subgraph import Subgraph

_SMALLEST_NORM = 1e-12


class Egra(Recommender):
    """Behaviour and modality branch, aligned.

    Args:
        settings: Model, alignment and regularisation.
        nodes: Who owns which user and item.
        ranking: The ranking loss.
        behavior_graph: ``N(A)``, this rank's rows; None where only samples are propagated over.
        modality_branch: None for a model that sees behaviour only.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        nodes: NodePartition,
        ranking: RankingLoss,
        behavior_graph: PartitionedMatrix | None,
        modality_branch: ModalityBranch | None,
    ) -> None:
        super().__init__(settings, nodes, ranking)
        self._behavior_graph = behavior_graph
        self.modality_branch = modality_branch

    def propagate(self, users: Tensor, items: Tensor) -> Propagated:
        """``H`` over the behaviour graph and every ``P_m``; see :meth:`Recommender.propagate`."""
        return self._propagate_to(None, users, items)

    def propagate_batch(
        self, users: Tensor, items: Tensor, shares: Sequence[Triplets]
    ) -> Propagated:
        """To the batch's own nodes alone; see :meth:`Recommender.propagate_batch`."""
        ids = torch.unique(torch.cat([share.nodes() for share in shares]))
        wanted = Selection(ids, self._nodes.positions)
        return self.rows_of(self._propagate_to(wanted, users, items), shares)

    def _propagate_to(self, wanted: Selection | None, users: Tensor, items: Tensor) -> Propagated:
        """Own rows of the wanted positions; of all when None."""
        assert self._behavior_graph is not None, "built for sampled propagation alone"
        num_layers = self._settings.model.num_layers
        embeddings = stacked(users, items)
        behavior = mean_of_layers(self._behavior_graph, embeddings, num_layers, wanted)
        held = None if wanted is None else wanted.own
        if self.modality_branch is None:
            return Propagated(behavior, None, held)
        kinds = (None, None) if wanted is None else by_kind(wanted.ids, self._nodes)
        return Propagated(behavior, self.modality_branch.propagate(items, *kinds), held)

    def propagate_sample(self, embeddings: Tensor, sample: Subgraph) -> Propagated:
        """Estimates the rows of a batch from its sampled neighbourhood.

        Args:
            embeddings: Rows of ``E_u`` that the sample needs, and below them rows of ``E_i``,
                ``[num_inputs, dim]``.
            sample: Who gathers from whom.

        Returns:
            The rows of this rank's triplets.
        """
        layers, sources = sample.read(embeddings)
        behavior = sample.mean_of_layers(layers)
        if self.modality_branch is None or sample.modalities is None:
            return Propagated(behavior, None, places=sample.rows)
        modalities = self.modality_branch.propagate_sample(sources, sample.modalities)
        return Propagated(behavior, modalities, places=sample.rows)

    def fuse(self, rows: Propagated) -> tuple[Tensor | None, Tensor]:
        """``Side``, and ``H`` and ``Side`` together."""
        if self.modality_branch is None or rows.modalities is None:
            return None, rows.behavior
        side = self.modality_branch.fuse(rows.modalities, rows.behavior)
        return side, self._together(rows.behavior, side)

    def _together(self, behavior: Tensor, side: Tensor) -> Tensor:
        settings = self._settings.model
        if settings.fusion == "normalized":
            behavior = functional.normalize(behavior, dim=1)
            side = functional.normalize(side, dim=1)
        if settings.side_weight != 1:
            side = settings.side_weight * side
        return behavior + side

    def modality_shares(self, rows: Propagated, made: Representations) -> dict[str, Tensor]:
        """See :meth:`Recommender.modality_shares`: the vectors are sums of ``H`` and ``Side``."""
        if self.modality_branch is None or rows.modalities is None or made.side is None:
            return {}
        settings = self._settings.model
        scale = settings.side_weight * _lengths(made.final) / _lengths(made.fused)
        if settings.fusion == "normalized":
            scale = scale / _lengths(made.side)
        shares = scale[:, :, None] * self.modality_branch.shares(rows.modalities, rows.behavior)
        return dict(zip(self.modality_branch.names, shares.unbind(1), strict=True))

    def told_apart(self, rows: Propagated) -> Propagated:
        """Modalities are dropped of each node of a triplet apart."""
        return rows.repeated() if self._settings.model.modality_dropout > 0 else rows

    def represent_batch(
        self, rows: Propagated, shares: Sequence[Triplets], step: int
    ) -> Representations:
        """With some modalities of some rows dropped, if the settings say so."""
        dropout = self._settings.model.modality_dropout
        if self.modality_branch is None or rows.modalities is None or dropout == 0:
            return super().represent_batch(rows, shares, step)
        sizes, num_modalities = (
            [len(share) for share in shares],
            self.modality_branch.num_modalities,
        )
        device = rows.behavior.device
        kept = [
            keep_mask(sizes, num_modalities, dropout, step, n, device, self.seed) for n in range(3)
        ]
        side = self.modality_branch.fuse(rows.modalities, rows.behavior, torch.cat(kept))
        return self._finish(rows, side, self._together(rows.behavior, side))

    def own_losses(self, batch: Batch) -> dict[str, Weighted]:
        """The alignment of users and of items, at the strength of this step."""
        side, settings = batch.rows.side, self._settings.alignment
        if side is None or settings.lambda_max == 0:
            return {}
        strength = alignment.strength(batch.step, settings)
        side_users, side_items, _ = batch.parts(side)
        users, items, _ = batch.parts(batch.rows.behavior)
        kinds = [
            Aligned.of(side_users, users, [share.users for share in batch.shares], settings),
            Aligned.of(side_items, items, [share.positives for share in batch.shares], settings),
        ]
        of_users, of_items = align(kinds, settings, getattr(torch, self._settings.precision))
        return {"user_alignment": (strength, of_users), "item_alignment": (strength, of_items)}


def _lengths(rows: Tensor) -> Tensor:
    """Norms ``[num_rows, 1]``, above 0."""
    return rows.norm(dim=1, keepdim=True).clamp_min(_SMALLEST_NORM)
