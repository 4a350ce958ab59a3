"""What all models share: a step takes the rows of its batch, ranks them, and keeps them small.

A model says how nodes are propagated and fused, and which losses of its own it adds.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from egra_dist.config import TrainingSettings
from egra_dist.graph.partition import NodePartition, RowPartition
from egra_dist.model.exchange import fetch_rows, rank
from egra_dist.model.ranking import RankingLoss


@dataclass(frozen=True)
class Triplets:
    """Users with an item of theirs and one that is not: positions of nodes, ``int64 [size]``."""

    users: Tensor
    positives: Tensor
    negatives: Tensor

    def __len__(self) -> int:
        return len(self.users)

    def nodes(self) -> Tensor:
        """All positions, ``[3 * size]``."""
        return torch.cat([self.users, self.positives, self.negatives])


@dataclass(frozen=True)
class Propagated:
    """What propagation gives some nodes.

    Attributes:
        behavior: ``H [num_rows, dim]``.
        modalities: Every ``P_m`` side by side, ``[num_rows, num_modalities * dim]``.
        held: The own nodes that there are rows of, ascending; all when None.
        places: Where a batch's nodes have a row each: that of every node of its triplets,
            ``int64 [3 * size]``. None where rows are those of triplets as they come, or no batch's.
    """

    behavior: Tensor
    modalities: Tensor | None
    held: Tensor | None = None
    places: Tensor | None = None

    def fetch(self, wanted: Sequence[Tensor], partition: RowPartition) -> "Propagated":
        """The rows wanted by this rank, see :func:`fetch_rows`."""
        parts = [part for part in (self.behavior, self.modalities) if part is not None]
        behavior, *modalities = fetch_rows(parts, wanted, partition, self.held)
        return Propagated(behavior, modalities[0] if modalities else None)

    def repeated(self) -> "Propagated":
        """A row for every node of the triplets, as they come."""
        if self.places is None:
            return self
        modalities = self.modalities
        if modalities is not None:
            modalities = modalities.index_select(0, self.places)
        return Propagated(self.behavior.index_select(0, self.places), modalities)


@dataclass(frozen=True)
class Representations:
    """What is known of some entities.

    Attributes:
        behavior: ``H [num_rows, dim]``.
        side: What modalities say, ``[num_rows, dim]``; None for a model that sees none.
        fused: Both together, before any normalisation.
        final: Their inner products are the scores.
    """

    behavior: Tensor
    side: Tensor | None
    fused: Tensor
    final: Tensor


@dataclass(frozen=True)
class Batch:
    """The triplets of a step, of all ranks, and the rows of this rank's own.

    Attributes:
        shares: The triplets of every rank; all ranks know them all.
        propagated: Rows of users, positives, and negatives of this rank.
        rows: The same rows, fused.
        step: Global step, for strengths that grow and for what is drawn at random.
    """

    shares: Sequence[Triplets]
    propagated: Propagated
    rows: Representations
    step: int

    @property
    def own(self) -> Triplets:
        """This rank's triplets."""
        return self.shares[rank()]

    @property
    def size(self) -> int:
        """Triplets of all ranks together."""
        return sum(len(share) for share in self.shares)

    def parts(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of users, positives, and negatives ``[size, dim]`` each, of those of the batch."""
        sizes, places = [len(self.own)] * 3, self.propagated.places
        if places is None:
            users, positives, negatives = rows.split(sizes)
        else:
            # Each for itself: what a loss does not take gets no gradient to be added up.
            users, positives, negatives = (rows.index_select(0, p) for p in places.split(sizes))
        return users, positives, negatives

    def sum_over_nodes(self, values: Tensor) -> Tensor:
        """The sum over all nodes of the triplets of values of rows, ``[num_rows]``."""
        places = self.propagated.places
        return values.sum() if places is None else values.index_select(0, places).sum()


@dataclass(frozen=True)
class Losses:
    """This rank's share of each loss; summed over the ranks they are the batch's losses.

    Attributes:
        values: By name, without their weights.
        total: Their weighted sum.
    """

    values: Mapping[str, Tensor]
    total: Tensor

    def named(self) -> dict[str, Tensor]:
        """The losses by the names they are recorded under."""
        everything = {**self.values, "total": self.total}
        return {name: value.detach() for name, value in everything.items()}


_SMALLEST_NORM = 1e-12
Weighted = tuple[float, Tensor]


class Recommender(nn.Module, ABC):
    """A model whose step propagates over the whole graph: the exact form.

    Args:
        settings: The training.
        nodes: Who owns which user and item.
        ranking: How positives and negatives are told apart.
    """

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
