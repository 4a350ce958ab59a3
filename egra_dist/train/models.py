"""Named models, each put together from the parts that it needs."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.catalog.catalog import Catalog, Features
from egra_dist.config import TrainingSettings
from egra_dist.extension import is_own, load_own
from egra_dist.graph.behavior import merge, sample_edges
from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import NodePartition, take_rows
from egra_dist.graph.products import column_counts
from egra_dist.model.bm3 import Bm3
from egra_dist.model.egra import Egra
from egra_dist.model.freedom import Freedom
from egra_dist.model.modality import ModalityBranch, WholeModalityGraph
from egra_dist.model.propagation import PartitionedMatrix
from egra_dist.model.ranking import RankingLoss
from egra_dist.model.recommender import Recommender
from egra_dist.model.vbpr import Vbpr
from egra_dist.train.task import Task

_EDGES = 1
"""Tells the stream of sampled edges from those of batches, which are two or three numbers long."""


def build_model(
    task: Task, catalog: Catalog, training: Csr, nodes: NodePartition, device: torch.device
) -> Recommender:
    """The model that the task names, its dense parameters drawn from torch's seed.

    Args:
        task: What to train on what.
        catalog: Where the features are.
        training: ``R [num_users, num_items]``.
        nodes: Who owns which node.
        device: Where this rank computes.
    """
    supplies = Supplies(task, catalog, training, nodes, device)
    common = supplies.common
    name = task.settings.model.name
    model: Recommender
    if name == "vbpr":
        model = Vbpr(*common, supplies.features)
    elif name == "bm3":
        model = Bm3(*common, supplies.behavior_graph, supplies.features)
    elif name == "freedom":
        model = Freedom(
            *common,
            supplies.behavior_graph,
            supplies.item_graphs,
            supplies.features,
            supplies.sample_behavior_graph,
        )
    elif is_own(name):
        model = load_own(name, "model.name", task.code)(supplies)
    else:
        graph = None if supplies.is_sampled else supplies.behavior_graph
        model = Egra(*common, graph, supplies.modality_branch())
    return model.to(device)


@dataclass
class Supplies:
    """What models are made from; each read when it is asked for.

    Attributes:
        task: What to train on what; ``task.settings`` are those of the training.
        catalog: Where the features are.
        training: ``R [num_users, num_items]``.
        nodes: Who owns which node.
        device: Where this rank computes.
    """

    task: Task
    catalog: Catalog
    training: Csr
    nodes: NodePartition
    device: torch.device

    @cached_property
    def common(self) -> tuple[TrainingSettings, NodePartition, RankingLoss]:
        """What every :class:`Recommender` is made from."""
        settings = self.task.settings
        counts = torch.from_numpy(_item_counts(self.training, self.nodes)).to(self.device)
        pool_size = self.training.num_columns if settings.ranking.negatives == "all" else None
        return (
            settings,
            self.nodes,
            RankingLoss(settings.ranking, counts, self.precision, pool_size),
        )

    @property
    def is_sampled(self) -> bool:
        """Whether nothing is propagated over the whole graph at once."""
        return self.task.settings.propagation.mode == "sampled"

    @property
    def precision(self) -> torch.dtype:
        """Type of products."""
        return getattr(torch, self.task.settings.precision)

    @cached_property
    def behavior_graph(self) -> PartitionedMatrix:
        """``N(A)``, merged or plain; this rank's rows."""
        return self._own_rows(Csr.load(self.task.graphs.behavior))

    def sample_behavior_graph(self, epoch: int) -> PartitionedMatrix:
        """``N(A)`` of the edges that an epoch keeps; all ranks draw the same."""
        random = np.random.default_rng([self.task.seed, epoch, 0, _EDGES])
        share = 1 - self.task.settings.model.freedom.edge_dropout
        return self._own_rows(merge(sample_edges(self.training, share, random), None, beta=0))

    @cached_property
    def features(self) -> dict[str, Tensor]:
        """Per modality this rank's rows ``[num_own_items, dim_m]``."""
        return {
            name: torch.as_tensor(
                np.array(self._modality(name).values[self._own_items], np.float32),
                device=self.device,
            )
            for name in self.task.graphs.features
        }

    @cached_property
    def item_graphs(self) -> dict[str, PartitionedMatrix]:
        """Per modality ``S_m``; this rank's rows."""
        return {
            name: PartitionedMatrix(
                take_rows(Csr.load(folder), [self._own_items]), self.nodes.items, self.device
            )
            for name, folder in self.task.graphs.features.items()
        }

    def modality_branch(self) -> ModalityBranch | None:
        """None for a model that sees behaviour only."""
        if not self.task.graphs.features:
            return None
        widths = {name: self._modality(name).dim for name in self.task.graphs.features}
        graph = None if self.is_sampled else self._modality_graph()
        return ModalityBranch(widths, self.task.settings.model.dim, graph, self.precision)

    def _modality_graph(self) -> WholeModalityGraph:
        plain = Csr.load(self.task.graphs.plain)
        rows = take_rows(plain, [self.nodes.users.block(dist.get_rank())])
        # A user's neighbours in the plain graph are items alone: columns count from the first.
        items = rows.indices - np.int32(self.catalog.num_users)
        user_rows = Csr(rows.indptr, items, rows.values, self.catalog.num_items)
        present = {
            name: torch.as_tensor(
                np.array(self._modality(name).present[self._own_items]), device=self.device
            )
            for name in self.features
        }
        return WholeModalityGraph(
            {name: values.to(self.precision) for name, values in self.features.items()},
            present,
            self.item_graphs,
            PartitionedMatrix(user_rows, self.nodes.items, self.device),
        )

    @property
    def _own_items(self) -> slice:
        return self.nodes.items.block(dist.get_rank())

    def _modality(self, name: str) -> Features:
        return self.catalog.features(name)

    def _own_rows(self, graph: Csr) -> PartitionedMatrix:
        rows = take_rows(graph, self.nodes.own_nodes(dist.get_rank()))
        positions = self.nodes.position_of_nodes(rows.indices).astype(np.int32)
        own = Csr(rows.indptr, positions, rows.values, rows.num_columns)
        return PartitionedMatrix(own, self.nodes.positions, self.device)


def _item_counts(training: Csr, nodes: NodePartition) -> np.ndarray:
    """Training interactions of every item at its position among the nodes; 0 for users."""
    items = nodes.position_of_items(np.arange(training.num_columns))
    counts = np.zeros(training.num_rows + training.num_columns, dtype=np.float32)
    counts[items] = column_counts(training)
    return counts
