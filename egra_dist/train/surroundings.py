"""From a batch's triplets to the tensors that sampled propagation needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.catalog.catalog import Features
from egra_dist.graph.neighborhood import Neighborhood, NeighborhoodSampler, Sources
from egra_dist.graph.partition import NodePartition
from egra_dist.graph.sampler import combine_keys
from egra_dist.model.exchange import rank
from egra_dist.model.propagation import SparseMatrix
from egra_dist.model.recommender import Triplets
from egra_dist.model.subgraph import ModalityGraph, Subgraph
from egra_dist.model.tables import ITEM, USER
from egra_dist.train.propagation import SampledBatch


@dataclass(frozen=True)
class Surroundings:
    """Draws what surrounds this rank's part of a batch.

    What is drawn for a node depends on seed, epoch, step and node, not on the rank that asks.

    Attributes:
        sampler: Draws neighbourhoods.
        features: Memory-mapped features of each modality; read for the drawn items alone.
        nodes: Who owns which node.
        seed: Seed of the draws.
        device: Where the tensors go.
    """

    sampler: NeighborhoodSampler
    features: Mapping[str, Features]
    nodes: NodePartition
    seed: int
    device: torch.device

    def __call__(self, shares: Sequence[Triplets], epoch: int, step: int) -> SampledBatch:
        """Draws around the triplets of this rank."""
        nodes = self.nodes.nodes_at(shares[rank()].nodes().cpu().numpy())
        drawn = self.sampler.sample(nodes, combine_keys(self.seed, epoch, step))
        ids = {USER: self._tensor(drawn.users), ITEM: self._tensor(drawn.items)}
        return SampledBatch(shares, ids, self._subgraph(drawn))

    def _subgraph(self, drawn: Neighborhood) -> Subgraph:
        nodes = [drawn.nodes, *(block.columns for block in drawn.layers)]
        return Subgraph(
            rows=self._tensor(drawn.rows),
            layers=[SparseMatrix(block.matrix, self.device) for block in drawn.layers],
            places=[self._tensor(np.searchsorted(drawn.inputs, layer)) for layer in nodes],
            modalities=self._modalities(drawn.sources, drawn.items) if drawn.sources else None,
        )

    def _modalities(self, sources: Sources, items: NDArray[np.int64]) -> ModalityGraph:
        blocks = sources.features
        columns = {name: block.columns for name, block in blocks.items()}
        return ModalityGraph(
            items={m: self._tensor(np.searchsorted(items, own)) for m, own in columns.items()},
            features={
                m: self._tensor(np.asarray(self.features[m].values[own], np.float32))
                for m, own in columns.items()
            },
            present={m: self._tensor(self.features[m].present[own]) for m, own in columns.items()},
            item_graphs={m: SparseMatrix(b.matrix, self.device) for m, b in blocks.items()},
            gather=SparseMatrix(sources.gather.matrix, self.device),
        )

    def _tensor(self, values: NDArray) -> Tensor:
        return torch.as_tensor(np.asarray(values), device=self.device)
