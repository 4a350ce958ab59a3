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

from egra_dist.graph.csr import Csr, starts_of
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
        return self._inputs[0]

    @cached_property
    def places(self) -> "Places":
        """Where they are needed."""
        parts = np.split(self._inputs[1], np.cumsum([len(part) for part in self._parts])[:-1])
        num_layers = 1 + len(self.layers)
        features = self.sources.features if self.sources else {}
        return Places(parts[:num_layers], dict(zip(features, parts[num_layers:], strict=True)))

    def reads(self) -> tuple[Csr, list[int]]:
        """Who reads which inputs, as a matrix ``[num_read, num_inputs]``, and rows by reader.

        First the nodes of the layers ``0 .. L - 1`` read themselves, those of the last and what
        ``P_L`` makes of their neighbours in one row; then the sources of each modality.
        """
        layers, features = self.places.layers, list(self.places.features.values())
        if not self.layers:
            alone, sizes = [layers[0], *features], [len(layers[0])]
            return _picks(np.concatenate(alone), len(self.inputs)), sizes + list(map(len, features))
        last = _with_own(self.layers[-1].matrix, layers[-1], layers[-2])
        before, after = (
            np.concatenate([np.empty(0, np.int32), *parts]) for parts in (layers[:-2], features)
        )
        lengths = np.concatenate([np.ones(len(before)), np.diff(last.indptr), np.ones(len(after))])
        assert last.values is not None, "sampled entries have weights"
        ones = [np.ones(len(part), np.float32) for part in (before, after)]
        matrix = Csr(
            starts_of(lengths.astype(np.int64)),
            np.concatenate([before, last.indices, after]),
            np.concatenate([ones[0], last.values, ones[1]]),
            len(self.inputs),
        )
        return matrix, [len(part) for part in (*layers[:-1], *features)]

    @cached_property
    def _inputs(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        return distinct(np.concatenate(self._parts))

    @property
    def _parts(self) -> list[NDArray[np.int64]]:
        features = self.sources.features.values() if self.sources else ()
        layers = [self.nodes, *(block.columns for block in self.layers)]
        return [*layers, *(block.columns + self.num_users for block in features)]

    @property
    def users(self) -> NDArray[np.int64]:
        """The users among the inputs."""
        return self.inputs[: np.searchsorted(self.inputs, self.num_users)]

    @property
    def items(self) -> NDArray[np.int64]:
        """The items among the inputs."""
        return self.inputs[np.searchsorted(self.inputs, self.num_users) :] - self.num_users


def _picks(places: NDArray[np.int32], num_inputs: int) -> Csr:
    """One entry of 1 in each row."""
    indptr = np.arange(len(places) + 1, dtype=np.int64)
    return Csr(indptr, places, np.ones(len(places), np.float32), num_inputs)


def _with_own(matrix: Csr, places: NDArray[np.int32], own: NDArray[np.int32]) -> Csr:
    """A matrix over the inputs at ``places``, and an entry of 1 at the row's own input first."""
    assert matrix.values is not None, "sampled entries have weights"
    firsts = matrix.indptr[:-1] + np.arange(len(own))
    is_other = np.ones(matrix.num_entries + len(own), dtype=bool)
    is_other[firsts] = False
    indices = np.empty(len(is_other), dtype=np.int32)
    values = np.ones(len(is_other), dtype=np.float32)
    indices[firsts], indices[is_other] = own, places[matrix.indices]
    values[is_other] = matrix.values
    return Csr(matrix.indptr + np.arange(len(own) + 1), indices, values, -1)


@dataclass(frozen=True)
class Places:
    """Where nodes stand among the inputs of a neighbourhood.

    Attributes:
        layers: Of each layer ``0 .. L``, ``int32 [num_nodes_l]``.
        features: Of the sources of each modality, ``int32 [num_sources_m]``.
    """

    layers: Sequence[NDArray[np.int32]]
    features: Mapping[str, NDArray[np.int32]]


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
