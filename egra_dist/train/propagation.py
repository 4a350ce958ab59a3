"""Two ways from tables to vectors, one interface: over the whole graph, or over samples of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from egra_dist.model.alignment import alignment_degrees
from egra_dist.model.batch import Propagated, Triplets
from egra_dist.model.egra import Egra
from egra_dist.model.recommender import Recommender
from egra_dist.model.subgraph import Subgraph
from egra_dist.model.tables import ITEM, USER, DirectTables, EmbeddingTables
from egra_dist.train.batches import TripletBatches
from egra_dist.train.moving import mapped, movables
from egra_dist.train.prefetch import prefetch

_NUM_AHEAD = 3
"""Batches that are sampled ahead: enough to even out their differences."""


@dataclass(frozen=True)
class Batch:
    """What a step trains on.

    Attributes:
        shares: The triplets of every rank; all ranks know them all.
    """

    shares: Sequence[Triplets]


@dataclass(frozen=True)
class SampledBatch(Batch):
    """A batch and what surrounds this rank's part of it.

    TorchRec's pipelines can move it, as a ``Pipelineable``.

    Attributes:
        ids: Rows to look up in each table, distinct and ascending, ``int64 [num_rows]``.
        subgraph: Who gathers from whom.
        features: The ids as a ``KeyedJaggedTensor`` where TorchRec looks them up.
    """

    ids: dict[str, Tensor]
    subgraph: Subgraph
    features: Any = None

    def to(self, device: torch.device, non_blocking: bool = False) -> "SampledBatch":
        """The batch on a device."""
        return mapped(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "SampledBatch":
        """The batch in page-locked memory, from which it is copied while other work is done."""
        return mapped(self, lambda tensor: tensor.pin_memory())

    def record_stream(self, stream: torch.Stream) -> None:
        """Tells the allocator that a stream uses the batch's tensors."""
        for tensor in movables(self):
            tensor.record_stream(stream)


@dataclass(frozen=True)
class Vectors:
    """What is known of this rank's users and items.

    Attributes:
        users: Final vectors ``[num_own_users, dim]``; inner products are the scores.
        items: ``[num_own_items, dim]``.
        degrees: How well modality and behaviour of users and of items are aligned,
            ``[num_own_users]`` and ``[num_own_items]``; None for a model that sees no modality.
        item_shares: What each modality adds to :attr:`items`, ``[num_own_items, dim]`` by its
            name; empty where it was not asked for, or the model does not add modalities up.
    """

    users: Tensor
    items: Tensor
    degrees: tuple[Tensor, Tensor] | None
    item_shares: Mapping[str, Tensor] = field(default_factory=dict)


B = TypeVar("B", bound=Batch)


class Propagation(ABC, Generic[B]):
    """How a training propagates."""

    @abstractmethod
    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[B]:
        """The batches of an epoch, from one of them on."""

    @abstractmethod
    def rows(self, batch: B) -> Propagated:
        """The rows of this rank's triplets, by the tables as they are; a collective call."""

    @abstractmethod
    def infer(self, with_shares: bool = False) -> Vectors:
        """Final vectors by the tables as they are, propagated exactly; a collective call.

        Args:
            with_shares: Whether to tell apart what modalities add.
        """


class WholeGraphPropagation(Propagation[Batch]):
    """Every step propagates over the whole graph: the exact form.

    Args:
        model: Propagates and fuses.
        tables: Embeddings.
        batches: Triplets.
    """

    def __init__(self, model: Recommender, tables: DirectTables, batches: TripletBatches) -> None:
        self._model = model
        self._tables = tables
        self._batches = batches

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """See :meth:`Propagation.epoch`."""
        return map(Batch, self._batches.epoch(epoch, first_step))

    def rows(self, batch: Batch) -> Propagated:
        """See :meth:`Propagation.rows`."""
        return self._model.propagate_batch(*self._local(), batch.shares)

    def infer(self, with_shares: bool = False) -> Vectors:
        """See :meth:`Propagation.infer`."""
        sizes = [len(self._tables.local(table)) for table in (USER, ITEM)]
        with torch.no_grad():
            propagated = self._model.propagate(*self._local())
            rows = self._model.represent(propagated)
            shares = self._model.modality_shares(propagated, rows) if with_shares else {}
        own_users, own_items = rows.final.split(sizes)
        if rows.side is None:
            return Vectors(own_users, own_items, None)
        of_users, of_items = alignment_degrees(rows.side, rows.behavior).split(sizes)
        of_modalities = {name: share.split(sizes)[1] for name, share in shares.items()}
        return Vectors(own_users, own_items, (of_users, of_items), of_modalities)

    def _local(self) -> tuple[Tensor, Tensor]:
        return self._tables.local(USER), self._tables.local(ITEM)


class SampledPropagation(Propagation[SampledBatch]):
    """Every step propagates over a sample around its batch, drawn ahead in the background.

    Args:
        model: Propagates and fuses.
        tables: Embeddings.
        batches: Triplets.
        surround: Draws what surrounds this rank's part of a batch, given epoch and step.
        infer: Propagates exactly, layer by layer.
        ahead: What else is done ahead with the batches that were drawn.
    """

    def __init__(
        self,
        model: Egra,
        tables: EmbeddingTables,
        batches: TripletBatches,
        surround: Callable[[Sequence[Triplets], int, int], SampledBatch],
        infer: Callable[[bool], Vectors],
        ahead: Callable[[Iterator[SampledBatch]], Iterator[SampledBatch]] = iter,
    ) -> None:
        self._model = model
        self._tables = tables
        self._batches = batches
        self._surround = surround
        self._infer = infer
        self._ahead = ahead

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[SampledBatch]:
        """See :meth:`Propagation.epoch`."""
        batches = enumerate(self._batches.epoch(epoch, first_step), first_step)
        sampled = (self._surround(shares, epoch, step) for step, shares in batches)
        return self._ahead(prefetch(sampled, _NUM_AHEAD))

    def rows(self, batch: SampledBatch) -> Propagated:
        """See :meth:`Propagation.rows`."""
        return self._model.propagate_sample(self._tables.lookup_batch(batch), batch.subgraph)

    def infer(self, with_shares: bool = False) -> Vectors:
        """See :meth:`Propagation.infer`."""
        with torch.no_grad():
            return self._infer(with_shares)
