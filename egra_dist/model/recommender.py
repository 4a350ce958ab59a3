"""What all models share: a step takes the rows of its batch, ranks them, and keeps them small.

A model says how nodes are propagated and fused, and which losses of its own it adds.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from egra_dist.config import TrainingSettings
from egra_dist.graph.partition import NodePartition
from egra_dist.model.batch import Batch, Losses, Propagated, Representations, Triplets
from egra_dist.model.exchange import rank
from egra_dist.model.ranking import RankingLoss

_SMALLEST_NORM = 1e-12
Weighted = tuple[float, Tensor]


class Recommender(nn.Module, ABC):
    """A model whose step propagates over the whole graph: the exact form.

    Args:
        settings: The training.
        nodes: Who owns which user and item.
        ranking: How positives and negatives are told apart.

    Attributes:
        seed: Of what is drawn at random in a step.
    """

    seed = 0

    def __init__(
        self, settings: TrainingSettings, nodes: NodePartition, ranking: RankingLoss
    ) -> None:
        super().__init__()
        self._settings = settings
        self._nodes = nodes
        self._ranking = ranking

    def start_epoch(self, epoch: int) -> None:
        """Prepares what a model draws anew each epoch, such as a sample of the edges."""

    @abstractmethod
    def propagate(self, users: Tensor, items: Tensor) -> Propagated:
        """Propagates over the whole graph.

        Args:
            users: ``E_u``, this rank's rows ``[num_own_users, dim]``.
            items: ``E_i``, this rank's rows ``[num_own_items, dim]``.

        Returns:
            This rank's nodes, its users first.
        """

    def propagate_batch(
        self, users: Tensor, items: Tensor, shares: Sequence[Triplets]
    ) -> Propagated:
        """Propagates to the rows of this rank's triplets; a collective call.

        Args:
            users: ``E_u``, this rank's rows ``[num_own_users, dim]``.
            items: ``E_i``, this rank's rows ``[num_own_items, dim]``.
            shares: The triplets of every rank; all ranks know them all.
        """
        return self.rows_of(self.propagate(users, items), shares)

    @abstractmethod
    def fuse(self, rows: Propagated) -> tuple[Tensor | None, Tensor]:
        """What modalities say of propagated rows, and all that is known of them.

        Returns:
            ``side`` and ``fused``, see :class:`Representations`.
        """

    def own_losses(self, batch: Batch) -> dict[str, Weighted]:
        """Losses that this model adds, each with its weight at this step."""
        return {}

    def represent(self, rows: Propagated) -> Representations:
        """Fuses propagated rows, any of them, for scores."""
        return self._finish(rows, *self.fuse(rows), self._settings.ranking.norm_power)

    def modality_shares(self, rows: Propagated, made: Representations) -> dict[str, Tensor]:
        """What each modality adds to final vectors ``[num_rows, dim]``, by its name.

        What is left of a final vector is what behaviour adds. Empty for a model that does not
        add modalities up.

        Args:
            rows: What was fused.
            made: What :meth:`represent` made of it.
        """
        return {}

    def told_apart(self, rows: Propagated) -> Propagated:
        """The rows of a batch as a step needs them; a model may treat those of a node apart."""
        return rows

    def represent_batch(
        self, rows: Propagated, shares: Sequence[Triplets], step: int
    ) -> Representations:
        """Fuses the rows of a batch for its losses; a model may drop some of what it sees."""
        return self._finish(rows, *self.fuse(rows))

    def _finish(
        self, rows: Propagated, side: Tensor | None, fused: Tensor, norm_power: float = 1.0
    ) -> Representations:
        if self._settings.ranking.score == "inner":
            return Representations(rows.behavior, side, fused, fused)
        length = fused.norm(dim=1, keepdim=True).clamp_min(_SMALLEST_NORM)
        return Representations(rows.behavior, side, fused, fused / length**norm_power)

    def rows_of(self, propagated: Propagated, shares: Sequence[Triplets]) -> Propagated:
        """The rows of this rank's triplets, one for each node.

        Args:
            propagated: See :meth:`propagate`.
            shares: The triplets of every rank; all ranks know them all.
        """
        wanted = [torch.unique(share.nodes()) for share in shares]
        places = torch.searchsorted(wanted[rank()], shares[rank()].nodes())
        return replace(propagated.fetch(wanted, self._nodes.positions), places=places)

    def losses(self, propagated: Propagated, shares: Sequence[Triplets], step: int) -> Losses:
        """This rank's share of the losses of a batch.

        Args:
            propagated: The rows of this rank's triplets.
            shares: The triplets of every rank; all ranks know them all.
            step: Global step.
        """
        propagated = self.told_apart(propagated)
        rows = self.represent_batch(propagated, shares, step)
        batch = Batch(shares, propagated, rows, step)
        weighted = {
            "ranking": (1.0, self.ranking_loss(batch)),
            "regularization": (self._settings.regularization, self.squared_norm(batch)),
            **self.own_losses(batch),
        }
        total = sum(weight * loss for weight, loss in weighted.values())
        assert isinstance(total, Tensor)
        return Losses({name: loss for name, (_, loss) in weighted.items()}, total)

    def ranking_loss(self, batch: Batch) -> Tensor:
        """How far the positives of this rank are from standing first; its share of the mean."""
        users, positives, negatives = batch.parts(batch.rows.final)
        ids = [(share.positives, share.negatives) for share in batch.shares]
        return self._ranking(users, positives, negatives, ids) / batch.size

    def squared_norm(self, batch: Batch) -> Tensor:
        """Half the squared norm of the rows of this rank's triplets; its share of the mean."""
        return 0.5 * batch.sum_over_nodes(batch.rows.fused.square().sum(1)) / batch.size
