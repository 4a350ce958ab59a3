"""What a step is about: triplets, the rows that propagation gives their nodes, and the losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from egra_dist.graph.partition import RowPartition
from egra_dist.model.exchange import fetch_rows, rank


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
