"""The neighbourhood of a batch, layer by layer, and where its modalities come from.

Two walks start at the nodes of a batch: one over the behaviour graph, as many layers deep as the
model's, and one to the items whose features reach them: a user's items, and the neighbours of
those in each feature graph.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from egra_dist.graph.csr import Csr
from egra_dist.graph.sampler import Block, FanOut, NeighborSampler, combine_keys, distinct

_BEHAVIOR, _ITEMS_OF_USERS, _FEATURES = range(3)
"""Tell the draws of a batch apart."""


@dataclass(frozen=True)
class Sources:
    """Where the modalities of a batch's nodes come from.

    Attributes:
        gather: ``[num_nodes, num_gathered]``, columns are items: for a user some of its row of
            ``N(A)[:U, U:]``, for an item itself.
        features: Per modality ``[num_gathered, num_sources_m]``, some of the rows of ``S_m``.
    """

    gather: Block
    features: Mapping[str, Block]


@dataclass(frozen=True)
class Neighborhood:
    """What a batch has to know of the graph.

    Attributes:
        nodes: The batch's nodes, distinct and ascending, ``int64 [num_nodes]``.
        rows: Place of each node that was asked for among them.
        layers: ``P_1 .. P_L``; the columns of one layer are the rows of the next.
        sources: None where no modality is seen.
        num_users: Nodes below are users.
    """

    nodes: NDArray[np.int64]
    rows: NDArray[np.int32]
    layers: Sequence[Block]
    sources: Sources | None
    num_users: int

    @cached_property
    def inputs(self) -> NDArray[np.int64]:
        """All nodes whose embeddings are needed, distinct and ascending: users first."""
        parts = [self.nodes, *(block.columns for block in self.layers)]
        if self.sources:
            parts += [b.columns + self.num_users for b in self.sources.features.values()]
        ids = np.sort(np.concatenate(parts))
        # numpy's own unique would hash them, which takes ten times as long.
        return ids[np.flatnonzero(np.diff(ids, prepend=-1))]

    @property
    def users(self) -> NDArray[np.int64]:
        """The users among the inputs."""
        return self.inputs[: np.searchsorted(self.inputs, self.num_users)]

    @property
    def items(self) -> NDArray[np.int64]:
        """The items among the inputs."""
        return self.inputs[np.searchsorted(self.inputs, self.num_users) :] - self.num_users


@dataclass(frozen=True)
class ModalitySampler:
    """Samples where modalities come from.

    Attributes:
        plain: ``N(A)`` without item-item edges.
        features: ``S_m`` of each modality.
        num_users: How many nodes are users.
        items_per_user: Most items that a user gathers from.
        neighbors_per_item: Most neighbours in a feature graph that an item gathers from.
    """

    plain: Csr
    features: Mapping[str, Csr]
    num_users: int
    items_per_user: int
    neighbors_per_item: int

    def sample(self, nodes: NDArray[np.int64], key: int) -> Sources:
        """Draws the sources of distinct, ascending nodes."""
        gather = self._gather(nodes, combine_keys(key, _ITEMS_OF_USERS))
        fan_out = FanOut(0, self.neighbors_per_item)
        blocks = {
            name: NeighborSampler(matrix).sample(
                gather.columns, fan_out, combine_keys(key, _FEATURES, number)
            )
            for number, (name, matrix) in enumerate(self.features.items())
        }
        return Sources(gather, blocks)

    def _gather(self, nodes: NDArray[np.int64], key: int) -> Block:
        users, items = np.split(nodes, [np.searchsorted(nodes, self.num_users)])
        sampler = NeighborSampler(self.plain, self.num_users)
        block = sampler.sample(users, FanOut(self.items_per_user, 0), key)
        of_users = block.columns[block.matrix.indices]
        columns, places = distinct(
            np.concatenate([of_users - self.num_users, items - self.num_users])
        )
        own = len(of_users) + np.arange(1, len(items) + 1)
        assert block.matrix.values is not None, "sampled entries have weights"
        values = np.concatenate([block.matrix.values, np.ones(len(items), dtype=np.float32)])
        indptr = np.concatenate([block.matrix.indptr, own])
        return Block(Csr(indptr, places, values, len(columns)), columns)


@dataclass(frozen=True)
class NeighborhoodSampler:
    """Samples neighbourhoods of batches.

    Attributes:
        behavior: ``N(A)``, merged or plain; users first.
        num_users: How many of its nodes are users.
        fan_outs: Most neighbours in each layer.
        modalities: None where no modality is seen.
    """

    behavior: Csr
    num_users: int
    fan_outs: Sequence[FanOut]
    modalities: ModalitySampler | None = field(default=None)

    def sample(self, nodes: NDArray[np.int64], key: int) -> Neighborhood:
        """Draws what surrounds some nodes.

        Args:
            nodes: ``int64 [num_rows]`` nodes of the behaviour graph, repeated as they come.
            key: Names the draw, see :meth:`NeighborSampler.sample`.
        """
        first, rows = distinct(nodes)
        sampler = NeighborSampler(self.behavior, self.num_users)
        layers: list[Block] = []
        frontier = first
        for layer, fan_out in enumerate(self.fan_outs):
            layers.append(sampler.sample(frontier, fan_out, combine_keys(key, _BEHAVIOR, layer)))
            frontier = layers[-1].columns
        sources = self.modalities.sample(first, key) if self.modalities else None
        return Neighborhood(first, rows, layers, sources, self.num_users)
