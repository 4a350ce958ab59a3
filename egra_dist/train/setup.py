"""Puts the parts of a training together on one rank."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist

from egra_dist.catalog.catalog import Catalog
from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import NodePartition, RowPartition
from egra_dist.model.tables import ITEM, USER, DirectTables, FusedTables
from egra_dist.train.agreement import SIGTERM, Agreement, Ending
from egra_dist.train.batches import TripletBatches, written_order
from egra_dist.train.checkpoint import Checkpoints, Keeping
from egra_dist.train.loop import Parts
from egra_dist.train.memory import keep_freed_memory
from egra_dist.train.models import build_model
from egra_dist.train.optimizers import Optimizers
from egra_dist.train.permutation import PseudorandomPermutation
from egra_dist.train.propagation import Propagation, WholeGraphPropagation
from egra_dist.train.report import Recorder, Reporter
from egra_dist.train.sampled import device_of_batches, sampled_propagation
from egra_dist.train.task import Task
from egra_dist.train.validation import Validator
from egra_dist.train.warm import WarmStart

_SECONDS_WHILE_LEAVING = 10.0
"""Between two checkpoints while a node is about to go: Ray starts the group again when it does."""


def partition_of(catalog: Catalog) -> NodePartition:
    """Blocks of users and of items, as TorchRec's row-wise sharding makes them."""
    num_ranks = dist.get_world_size()
    return NodePartition(
        RowPartition.even(catalog.num_users, num_ranks),
        RowPartition.even(catalog.num_items, num_ranks),
    )


def assemble(
    task: Task,
    device: torch.device,
    recorder: Recorder | None = None,
    node_is_leaving: Callable[[], bool] = lambda: False,
) -> Parts:
    """Builds every part of a training from the artifacts that the task names.

    Args:
        task: What to train on what.
        device: Where this rank computes.
        recorder: Where rank 0 records; None on the other ranks.
        node_is_leaving: Whether checkpoints are written in short intervals now.
    """
    keep_freed_memory()
    catalog = task.open_catalog()
    nodes = partition_of(catalog)
    settings = task.settings
    tables = _tables(task, catalog, nodes, device)
    torch.manual_seed(task.seed)
    training = Csr.load(task.graphs.training)
    model = build_model(task, catalog, training, nodes, device)
    model.seed = task.seed
    is_sampled = settings.propagation.mode == "sampled"
    optimizers = Optimizers(
        tables.parameters() if isinstance(tables, DirectTables) else tables,
        list(model.parameters()),
        settings.optimizer,
        is_sparse=is_sampled,
    )
    batches = TripletBatches(
        training,
        nodes,
        settings.batch_size,
        task.seed,
        device_of_batches(tables, device),
        settings.ranking,
        PseudorandomPermutation if is_sampled else written_order,
    )
    propagation: Propagation
    if is_sampled:
        propagation = sampled_propagation(task, catalog, nodes, model, tables, batches, device)
    else:
        assert isinstance(tables, DirectTables), "the settings refuse others"
        propagation = WholeGraphPropagation(model, tables, batches)
    seconds = 60 * task.survival.checkpoint_minutes
    checkpoints = Checkpoints(_keeping(task, catalog), tables, model, optimizers)
    return Parts(
        settings=settings,
        tables=tables,
        model=model,
        optimizers=optimizers,
        propagation=propagation,
        checkpoints=checkpoints,
        validate=Validator(catalog, training, nodes, settings, task.evaluation),
        report=Reporter(
            settings,
            batches.steps_per_epoch,
            batches.num_triplets,
            recorder,
            task.progress if dist.get_rank() == 0 else None,
            task.log_every_steps,
            tables.metrics,
        ),
        agreement=Agreement(
            partial(_told, task.progress),
            lambda: (
                checkpoints.seconds_since_save
                > (_SECONDS_WHILE_LEAVING if node_is_leaving() else seconds)
            ),
            task.survival.checkpoint_steps,
        ),
    )


def _tables(
    task: Task, catalog: Catalog, nodes: NodePartition, device: torch.device
) -> DirectTables | FusedTables:
    """The tables as they are before the first step."""
    settings = task.settings
    sizes = {USER: catalog.num_users, ITEM: catalog.num_items}
    widths = {USER: settings.model.user_dim, ITEM: settings.model.dim}
    tables: DirectTables | FusedTables
    if settings.tables.lookup == "torchrec":
        tables = FusedTables(sizes, widths, device, settings.tables, settings.optimizer)
    else:
        dtype = getattr(torch, settings.optimizer.table_type)
        is_sampled = settings.propagation.mode == "sampled"
        place: Literal["shared", "stacked"] = "shared" if is_sampled else "stacked"
        tables = DirectTables(sizes, widths, device, dtype, place)
    tables.initialize(task.seed)
    if settings.warm_start is not None:
        graphs = task.graphs
        features = [Csr.load(folder) for folder in graphs.features.values()]
        warm_start = WarmStart(
            catalog, nodes, Csr.load(graphs.behavior), features, task.folder / "warm_start"
        )
        warm_start(tables, settings.warm_start)
    return tables


def _keeping(task: Task, catalog: Catalog) -> Keeping:
    made_from = {**task.inputs, "catalog": catalog.digest, "seed": str(task.seed)}
    if task.evaluation.num_users is not None:  # scores of other users cannot be compared
        made_from["evaluated users"] = str(task.evaluation.num_users)
    # Such tables have an id's row on the worker that has the id.
    if task.settings.tables.managed_collision.is_used:
        made_from["number of workers"] = str(dist.get_world_size())
    return Keeping(
        task.folder / "checkpoints",
        made_from,
        task.recording.run_id if task.recording else None,
        task.survival.checkpoints_kept,
        task.storage,
        *([task.progress.warn] if task.progress else []),
    )


def _told(board: Any) -> Ending:
    """What this rank has heard."""
    if board is not None and dist.get_rank() == 0 and board.is_stopped():
        return Ending.STOPPED
    return Ending.PREEMPTED if SIGTERM.is_received() else Ending.NONE
