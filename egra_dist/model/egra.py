"""EGRA: behaviour on the merged graph, modalities beside it, the two aligned (METHOD, stage 3).

MGCN is the same model without item-item edges and with uniform, constant alignment; LightGCN is
the behaviour branch alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from egra_dist.config import TrainingSettings
from egra_dist.graph.partition import NodePartition, RowPartition
from egra_dist.model import alignment
from egra_dist.model.exchange import fetch_rows, gather_rows, rank
from egra_dist.model.losses import bpr, info_nce
from egra_dist.model.modality import ModalityBranch
from egra_dist.model.propagation import PartitionedMatrix, mean_of_layers


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
class Losses:
    """This rank's share of each loss; summed over the ranks they are the batch's losses."""

    ranking: Tensor
    regularization: Tensor
    user_alignment: Tensor
    item_alignment: Tensor
    total: Tensor

    def named(self) -> dict[str, Tensor]:
        """The losses by the names they are recorded under."""
        return {name: getattr(self, name).detach() for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Propagated:
    """What propagation gives some nodes.

    Attributes:
        behavior: ``H [num_rows, dim]``.
        modalities: Every ``P_m`` side by side, ``[num_rows, num_modalities * dim]``.
    """

    behavior: Tensor
    modalities: Tensor | None

    def fetch(self, wanted: Sequence[Tensor], partition: RowPartition) -> "Propagated":
        """The rows wanted by this rank, see :func:`fetch_rows`."""
        if self.modalities is None:
            (behavior,) = fetch_rows([self.behavior], wanted, partition)
            return Propagated(behavior, None)
        behavior, modalities = fetch_rows([self.behavior, self.modalities], wanted, partition)
        return Propagated(behavior, modalities)


@dataclass(frozen=True)
class Representations:
    """What is known of some entities: ``H`` and ``Side``, each ``[num_rows, dim]``."""

    behavior: Tensor
    side: Tensor | None

    @property
    def final(self) -> Tensor:
        """``H + Side``, whose inner products are the scores."""
        return self.behavior if self.side is None else self.behavior + self.side


class Egra(nn.Module):
    """The exact form of the model: every step propagates over the whole graph.

    Args:
        settings: Model, alignment and regularisation.
        behavior_graph: ``N(A)``, this rank's rows.
        nodes: Who owns which user and item.
        modality_branch: None for a model that sees behaviour only.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        behavior_graph: PartitionedMatrix,
        nodes: NodePartition,
        modality_branch: ModalityBranch | None,
    ) -> None:
        super().__init__()
        self._settings = settings
        self._behavior_graph = behavior_graph
        self._nodes = nodes
        self.modality_branch = modality_branch

    def propagate(self, users: Tensor, items: Tensor) -> Propagated:
        """Propagates over both graphs.

        Args:
            users: ``E_u``, this rank's rows ``[num_own_users, dim]``.
            items: ``E_i``, this rank's rows ``[num_own_items, dim]``.

        Returns:
            This rank's nodes, its users first.
        """
        embeddings = torch.cat([users, items])
        num_layers = self._settings.model.num_layers
        behavior = mean_of_layers(self._behavior_graph, embeddings, num_layers)
        if self.modality_branch is None:
            return Propagated(behavior, None)
        return Propagated(behavior, self.modality_branch.propagate(items))

    def represent(self, rows: Propagated) -> Representations:
        """Fuses propagated rows, any of them."""
        if self.modality_branch is None or rows.modalities is None:
            return Representations(rows.behavior, None)
        side = self.modality_branch.fuse(rows.modalities, rows.behavior)
        return Representations(rows.behavior, side)

    def losses(self, propagated: Propagated, shares: Sequence[Triplets], step: int) -> Losses:
        """This rank's share of the losses of a batch.

        Args:
            propagated: See :meth:`propagate`.
            shares: The triplets of every rank; all ranks know them all.
            step: Global step, for the alignment strength.
        """
        wanted = [share.nodes() for share in shares]
        rows = self.represent(propagated.fetch(wanted, self._nodes.positions))
        size, batch_size = len(shares[rank()]), sum(len(share) for share in shares)
        user, positive, negative = rows.final.split(size)
        ranking = bpr((user * positive).sum(1), (user * negative).sum(1)).sum() / batch_size
        squares = 0.5 * rows.final.square().sum() / batch_size
        regularization = self._settings.regularization * squares
        users, items = self._alignment(rows, shares)
        aligned = alignment.strength(step, self._settings.alignment) * (users + items)
        return Losses(ranking, regularization, users, items, ranking + regularization + aligned)

    def _alignment(
        self, rows: Representations, shares: Sequence[Triplets]
    ) -> tuple[Tensor, Tensor]:
        if rows.side is None or self._settings.alignment.lambda_max == 0:
            return rows.behavior.new_zeros(()), rows.behavior.new_zeros(())
        size = len(shares[rank()])
        users, items = slice(0, size), slice(size, 2 * size)
        return (
            self._align(rows.side[users], rows.behavior[users], [s.users for s in shares]),
            self._align(rows.side[items], rows.behavior[items], [s.positives for s in shares]),
        )

    def _align(self, side: Tensor, behavior: Tensor, entities: list[Tensor]) -> Tensor:
        """Weighted InfoNCE of this rank's rows against the rows of all ranks."""
        settings = self._settings.alignment
        if settings.unique_ids:
            kept = _first_occurrences(entities)
            side, behavior = side[kept[rank()]], behavior[kept[rank()]]
            entities = [ids[mask] for ids, mask in zip(entities, kept, strict=True)]
        sizes = [len(ids) for ids in entities]
        start = sum(sizes[: rank()])
        own = slice(start, start + sizes[rank()])
        degrees = gather_rows(alignment.alignment_degrees(side, behavior)[:, None], sizes)[:, 0]
        weights = alignment.entity_weights(degrees, settings)[own]
        positives = torch.arange(own.start, own.stop, device=side.device)
        candidates = gather_rows(behavior, sizes)
        losses = info_nce(side, candidates, positives, settings.temperature)
        return (weights * losses).sum() / sum(sizes)


def _first_occurrences(entities: list[Tensor]) -> list[Tensor]:
    """Masks of the entries that no earlier entry equals, over all ranks."""
    ids = torch.cat(entities)
    _, inverse = torch.unique(ids, return_inverse=True)
    places = torch.arange(len(ids), device=ids.device)
    first = torch.full_like(places, len(ids)).scatter_reduce(0, inverse, places, "amin")
    return list((first[inverse] == places).split([len(part) for part in entities]))
