"""From a batch's triplets to the tensors that sampled propagation needs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.catalog.catalog import Features
from egra_dist.graph.csr import Csr
from egra_dist.graph.neighborhood import Neighborhood, NeighborhoodSampler, Sources
from egra_dist.graph.partition import NodePartition
from egra_dist.graph.sampler import Block, combine_keys
from egra_dist.model.batch import Triplets
from egra_dist.model.exchange import rank
from egra_dist.model.sparse import SparseMatrix
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
        key: Makes TorchRec's form of the ids; None where it is not needed.
    """

    sampler: NeighborhoodSampler
    features: Mapping[str, Features]
    nodes: NodePartition
    seed: int
    device: torch.device
    key: Callable[[Mapping[str, Tensor]], Any] | None = None

    def __call__(self, shares: Sequence[Triplets], epoch: int, step: int) -> SampledBatch:
        """Draws around the triplets of this rank."""
        nodes = self.nodes.nodes_at(shares[rank()].nodes().cpu().numpy())
        drawn = self.sampler.sample(nodes, combine_keys(self.seed, epoch, step))
        ids = {USER: self._tensor(drawn.users), ITEM: self._tensor(drawn.items)}
        features = self.key(ids) if self.key else None
        return SampledBatch(shares, ids, self._subgraph(drawn), features)

    def _subgraph(self, drawn: Neighborhood) -> Subgraph:
        reads, sizes = drawn.reads()
        return Subgraph(
            rows=self._tensor(drawn.rows),
            reads=self._matrix(reads),
            sizes=sizes,
            layers=[self._matrix(block.matrix) for block in drawn.layers[:-1]],
            num_layers=len(drawn.layers),
            modalities=self._modalities(drawn.sources) if drawn.sources else None,
        )

    def _modalities(self, sources: Sources) -> ModalityGraph:
        blocks = sources.features
        return ModalityGraph(
            features={
                m: self._tensor(self.features[m].values[block.columns]).float()
                for m, block in blocks.items()
            },
            item_graphs={
                m: self._matrix(_of_present(block, self.features[m])) for m, block in blocks.items()
            },
            gather=self._matrix(sources.gather.matrix),
        )

    def _matrix(self, matrix: Csr) -> SparseMatrix:
        return SparseMatrix(matrix, self.device)

    def _tensor(self, values: NDArray) -> Tensor:
        return torch.as_tensor(np.asarray(values), device=self.device)


def _of_present(block: Block, features: Features) -> Csr:
    """The rows without what comes from items that lack the modality."""
    matrix = block.matrix
    present = features.present[block.columns]
    if present.all():
        return matrix
    assert matrix.values is not None, "sampled entries have weights"
    return replace(matrix, values=matrix.values * present[matrix.indices])
