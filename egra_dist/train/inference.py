"""Layer-wise inference: exact vectors of all nodes, row block by row block, out of core.

Each layer's output is a memory-mapped file, which the next layer gathers from; every rank computes
its own rows, and holds one block of them in memory.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.catalog.catalog import Features
from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import NodePartition
from egra_dist.graph.products import multiply_rows, row_blocks
from egra_dist.model.alignment import alignment_degrees
from egra_dist.model.batch import Propagated
from egra_dist.model.egra import Egra
from egra_dist.model.tables import ITEM, USER, EmbeddingTables
from egra_dist.train.propagation import Vectors
from egra_dist.train.shared import create_shared, publish

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Graphs:
    """What is propagated over; memory-mapped.

    Attributes:
        behavior: ``N(A)``, merged or plain.
        plain: ``N(A)`` without item-item edges.
        features: ``S_m`` of each modality that is seen.
    """

    behavior: Csr
    plain: Csr
    features: Mapping[str, Csr]


@dataclass(frozen=True)
class LayerwiseInference:
    """Propagates and fuses all nodes exactly.

    Attributes:
        model: EGRA or one of its relatives.
        tables: Embeddings.
        nodes: Who owns which node.
        graphs: What they are propagated over.
        features: ``X_m`` of each modality that is seen.
        num_layers: ``L``.
        folder: Where the layers go; shared by all ranks, removed at the end.
        device: Where the dense part runs.
    """

    model: Egra
    tables: EmbeddingTables
    nodes: NodePartition
    graphs: Graphs
    features: Mapping[str, Features]
    num_layers: int
    folder: Path
    device: torch.device

    def __call__(self, with_shares: bool = False) -> Vectors:
        """Final vectors of this rank's nodes; a collective call.

        Args:
            with_shares: Whether to tell apart what modalities add.
        """
        layers = self._layers()
        gathered = self._gathered(layers[0]) if self.features else None
        vectors = self._fused(layers, gathered, with_shares)
        dist.barrier()
        if dist.get_rank() == 0:
            # What a rank has mapped stays readable until it lets go.
            shutil.rmtree(self.folder)
        return vectors

    def _layers(self) -> list[Matrix]:
        """``N(A)^l E`` of all nodes, for ``l = 0 .. L``."""
        layers = [self._create("layer-0", self._num_nodes, self._dim)]
        num_users = self.nodes.users.num_rows
        for table, first in ((USER, 0), (ITEM, num_users)):
            for rows, values in self.tables.own_rows(table):
                layers[0][first + rows.start : first + rows.stop] = _to_numpy(values)
        publish(layers[0])
        for number in range(1, self.num_layers + 1):
            layers.append(self._create(f"layer-{number}", self._num_nodes, self._dim))
            for rows in self._own_nodes:
                _multiply(self.graphs.behavior, rows, layers[-2], layers[-1])
        return layers

    def _gathered(self, embeddings: Matrix) -> Matrix:
        """``I_m = S_m e_m`` of all items, modalities side by side.

        Args:
            embeddings: ``E`` of all nodes; read where this rank has written it.
        """
        num_items = self.nodes.items.num_rows
        gathered = self._create("gathered", num_items, len(self.features) * self._dim)
        for number, (name, graph) in enumerate(self.graphs.features.items()):
            purified = self._create(f"purified-{number}", num_items, self._dim)
            self._purify(name, embeddings[self.nodes.users.num_rows :], purified)
            dist.barrier()
            columns = slice(number * self._dim, (number + 1) * self._dim)
            _multiply(graph, self._own_items, purified, gathered[:, columns])
        dist.barrier()
        return gathered

    def _purify(self, modality: str, embeddings: Matrix, purified: Matrix) -> None:
        branch, features = self.model.modality_branch, self.features[modality]
        assert branch is not None, "there are features"
        for rows in row_blocks(self.graphs.features[modality], self._own_items):
            own = self._tensor(np.array(embeddings[rows]))
            values = self._tensor(np.array(features.values[rows], np.float32))
            present = self._tensor(np.array(features.present[rows]))
            purified[rows] = _to_numpy(branch.purified(modality, own, values, present))
        publish(purified)

    def _fused(self, layers: list[Matrix], gathered: Matrix | None, with_shares: bool) -> Vectors:
        final = self._create("final", self._num_nodes, self._dim)
        degrees = self._create("degrees", self._num_nodes, 1)
        names = self.features if with_shares else ()
        shares = {m: self._create(f"share-{m}", self._num_nodes, self._dim) for m in names}
        for own in self._own_nodes:
            for rows in row_blocks(self.graphs.behavior, own):
                total = np.sum([layer[rows] for layer in layers], axis=0)
                behavior = self._tensor(total / np.float32(len(layers)))
                modalities = None if gathered is None else self._modalities(rows, gathered)
                propagated = Propagated(behavior, modalities)
                fused = self.model.represent(propagated)
                final[rows] = _to_numpy(fused.final)
                if fused.side is not None:
                    of_rows = alignment_degrees(fused.side, fused.behavior)
                    degrees[rows] = _to_numpy(of_rows[:, None])
                if shares:
                    for name, share in self.model.modality_shares(propagated, fused).items():
                        shares[name][rows] = _to_numpy(share)
        users, items = (self._tensor(final[own]) for own in self._own_nodes)
        of_users, of_items = (self._tensor(degrees[own])[:, 0] for own in self._own_nodes)
        if gathered is None:
            return Vectors(users, items, None)
        own_items = self._own_nodes[-1]
        of_modalities = {name: self._tensor(share[own_items]) for name, share in shares.items()}
        return Vectors(users, items, (of_users, of_items), of_modalities)

    def _modalities(self, rows: slice, gathered: Matrix) -> Tensor:
        """Every ``P_m`` of a block of nodes, which are all users or all items."""
        num_users = self.nodes.users.num_rows
        if rows.start >= num_users:
            return self._tensor(gathered[rows.start - num_users : rows.stop - num_users])
        return self._tensor(multiply_rows(self.graphs.plain, rows, gathered, num_users))

    def _create(self, name: str, num_rows: int, dim: int) -> Matrix:
        """A file of all ranks; what they wrote to earlier ones is there once it is open."""
        return create_shared(self.folder / f"{name}.npy", num_rows, dim)

    def _tensor(self, values: NDArray) -> Tensor:
        return torch.as_tensor(values, device=self.device)

    @property
    def _dim(self) -> int:
        return self.tables.width(ITEM)

    @property
    def _num_nodes(self) -> int:
        return self.nodes.positions.num_rows

    @property
    def _own_nodes(self) -> list[slice]:
        return self.nodes.own_nodes(dist.get_rank())

    @property
    def _own_items(self) -> slice:
        return self.nodes.items.block(dist.get_rank())


def _multiply(matrix: Csr, rows: slice, dense: Matrix, product: Matrix) -> None:
    for block in row_blocks(matrix, rows):
        product[block] = multiply_rows(matrix, block, dense)
    publish(product)


def _to_numpy(values: Tensor) -> Matrix:
    return values.detach().cpu().numpy()
