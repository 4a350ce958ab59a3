"""Puts the parts of a training together on one rank."""

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.catalog.catalog import Catalog
from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import NodePartition, RowPartition, take_rows
from egra_dist.model.egra import Egra
from egra_dist.model.modality import ModalityBranch
from egra_dist.model.propagation import PartitionedMatrix
from egra_dist.model.tables import EmbeddingTables
from egra_dist.train.batches import TripletBatches
from egra_dist.train.checkpoint import Checkpoints
from egra_dist.train.loop import Parts
from egra_dist.train.optimizers import Optimizers
from egra_dist.train.report import Recorder, Reporter
from egra_dist.train.task import Task
from egra_dist.train.validation import Validator


def partition_of(catalog: Catalog) -> NodePartition:
    """Blocks of users and of items, as TorchRec's row-wise sharding makes them."""
    num_ranks = dist.get_world_size()
    return NodePartition(
        RowPartition.even(catalog.num_users, num_ranks),
        RowPartition.even(catalog.num_items, num_ranks),
    )


def assemble(task: Task, device: torch.device, recorder: Recorder | None = None) -> Parts:
    """Builds every part of a training from the artifacts that the task names.

    Args:
        task: What to train on what.
        device: Where this rank computes.
        recorder: Where rank 0 records; None on the other ranks.
    """
    catalog = Catalog.open(task.catalog)
    nodes = partition_of(catalog)
    settings = task.settings
    tables = EmbeddingTables(catalog.num_users, catalog.num_items, settings.model.dim, device)
    tables.initialize(task.seed)
    torch.manual_seed(task.seed)
    model = _build_model(task, catalog, nodes, device)
    optimizers = Optimizers(tables.parameters(), list(model.parameters()), settings.optimizer)
    training = Csr.load(task.graphs.training)
    batches = TripletBatches(training, nodes, settings.batch_size, task.seed, device)
    return Parts(
        settings=settings,
        tables=tables,
        model=model,
        optimizers=optimizers,
        batches=batches,
        checkpoints=Checkpoints(task.folder / "checkpoints", tables, model, optimizers),
        validate=Validator(catalog, training, nodes, model, settings, task.evaluation),
        report=Reporter(
            settings,
            batches.steps_per_epoch,
            batches.num_triplets,
            recorder,
            task.progress if dist.get_rank() == 0 else None,
            task.log_every_steps,
        ),
    )


def _build_model(task: Task, catalog: Catalog, nodes: NodePartition, device: torch.device) -> Egra:
    rank = dist.get_rank()
    behavior = take_rows(Csr.load(task.graphs.behavior), nodes.own_nodes(rank))
    positions = nodes.position_of_nodes(behavior.indices)
    rows = Csr(behavior.indptr, positions.astype(np.int32), behavior.values, behavior.num_columns)
    graph = PartitionedMatrix(rows, nodes.positions, device)
    branch = None
    if task.settings.model.uses_modalities and task.graphs.features:
        branch = _build_modality_branch(task, catalog, nodes, device)
    return Egra(task.settings, graph, nodes, branch).to(device)


def _build_modality_branch(
    task: Task, catalog: Catalog, nodes: NodePartition, device: torch.device
) -> ModalityBranch:
    rank = dist.get_rank()
    own = nodes.items.block(rank)
    features: dict[str, Tensor] = {}
    present: dict[str, Tensor] = {}
    graphs: dict[str, PartitionedMatrix] = {}
    for name, folder in task.graphs.features.items():
        modality = catalog.features(name)
        features[name] = torch.as_tensor(np.array(modality.values[own], np.float32), device=device)
        present[name] = torch.as_tensor(np.array(modality.present[own]), device=device)
        rows = take_rows(Csr.load(folder), [own])
        graphs[name] = PartitionedMatrix(rows, nodes.items, device)
    plain = take_rows(Csr.load(task.graphs.plain), [nodes.users.block(rank)])
    # A user's neighbours in the plain graph are items alone, so columns can count from the first.
    user_rows = Csr(
        plain.indptr, plain.indices - np.int32(catalog.num_users), plain.values, catalog.num_items
    )
    return ModalityBranch(
        features,
        present,
        graphs,
        PartitionedMatrix(user_rows, nodes.items, device),
        task.settings.model.dim,
    )
