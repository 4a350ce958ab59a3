"""What each Ray Train worker runs: a training, or what is done with vectors that were trained."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.catalog.catalog import Catalog
from egra_dist.cluster.processor import multiplies_bfloat16_fast
from egra_dist.config import MAIN
from egra_dist.errors import UserError
from egra_dist.evaluate.split import Split
from egra_dist.files import write_failures_named, write_json
from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import NodePartition, RowPartition
from egra_dist.model.tables import ITEM, USER
from egra_dist.tracking.noise import setup_logging
from egra_dist.tracking.recorder import MetricRecorder
from egra_dist.train.agreement import Ending
from egra_dist.train.commit import TrainingState
from egra_dist.train.history import Histories
from egra_dist.train.loop import EndedError, Parts, train
from egra_dist.train.propagation import Vectors
from egra_dist.train.setup import assemble, partition_of
from egra_dist.train.sharding import SHARDING, actual_sharding
from egra_dist.train.shared import create_shared
from egra_dist.train.task import HISTORY, SHARES, Task, vectors_file
from egra_dist.train.validation import evaluate_rows
from egra_dist.train.watchdog import Watchdog

_log = logging.getLogger(__name__)


def train_worker(config: dict[str, Any]) -> None:
    """Trains, writes the final vectors of the best state, and evaluates them."""
    from egra_dist.train.group import node_is_leaving

    task, device = _start(config)
    if dist.get_rank() == 0:
        _warn_of_slow_products(task, device)
    parts = assemble(task, device, _open_recorder(task), node_is_leaving)
    watchdog = _watchdog(task)
    try:
        with watchdog, write_failures_named(task.folder):
            state = train(dataclasses.replace(parts, beat=watchdog.beat))
            _finish(task, parts, state)
    except EndedError as error:
        if error.ending != Ending.STOPPED:
            raise  # so that the group is started again
    except FloatingPointError as error:
        raise UserError(
            f"{task.stage}: {error}; try a smaller optimizer.learning_rate, which is "
            f"{task.settings.optimizer.learning_rate:g}"
        ) from None
    finally:
        parts.report.close()


def _finish(task: Task, parts: Parts, state: TrainingState) -> None:
    """Writes and evaluates the vectors of the best state."""
    catalog = task.open_catalog()
    nodes = partition_of(catalog)
    vectors = parts.propagation.infer(with_shares=task.stage == MAIN)
    _write_vectors(task.folder, nodes, vectors)
    figures = _evaluate(task, catalog, nodes, vectors.users, vectors.items)
    if dist.get_rank() == 0:
        write_json(task.folder / SHARDING, actual_sharding(parts.tables.sharded_tensors()))
        write_json(task.folder / "training.json", dataclasses.asdict(state))
        write_json(task.evaluation_file, figures)


def evaluate_worker(config: dict[str, Any]) -> None:
    """Evaluates vectors that were trained earlier, each rank its own block."""
    task, device = _start(config)
    catalog = task.open_catalog()
    nodes = partition_of(catalog)
    vectors = _read_vectors(task, nodes, task.users or task.folder, device)
    figures = _evaluate(task, catalog, nodes, vectors.users, vectors.items)
    if dist.get_rank() == 0:
        write_json(task.evaluation_file, figures)


def history_worker(config: dict[str, Any]) -> None:
    """Mixes histories into users' vectors that were trained earlier, and evaluates them."""
    task, device = _start(config)
    assert task.users, "they go beside those that were trained"
    catalog = task.open_catalog()
    nodes = partition_of(catalog)
    vectors = _read_vectors(task, nodes, task.folder, device)
    with write_failures_named(task.users):
        users, tried = Histories(task, catalog, nodes, vectors).best()
        _write_rows(vectors_file(task.users, USER), nodes.users, users)
        figures = _evaluate(task, catalog, nodes, users, vectors.items)
        if dist.get_rank() == 0:
            write_json(task.users / HISTORY, [dataclasses.asdict(each) for each in tried])
            write_json(task.evaluation_file, figures)


def _read_vectors(
    task: Task, nodes: NodePartition, folder_of_users: Path, device: torch.device
) -> Vectors:
    rank = dist.get_rank()
    users = vectors_file(folder_of_users, USER)
    items = vectors_file(task.folder, ITEM)
    return Vectors(
        _read_rows(users, nodes.users.block(rank), device),
        _read_rows(items, nodes.items.block(rank), device),
        None,
    )


def _start(config: dict[str, Any]) -> tuple[Task, torch.device]:
    import ray.train.torch

    task: Task = config["task"]
    setup_logging(task.verbosity)
    task.load_code()
    return task, ray.train.torch.get_device()


def _watchdog(task: Task) -> Watchdog:
    return Watchdog(
        dist.get_rank(), task.folder, 60 * task.survival.stuck_minutes, _warning_of(task)
    )


def _warning_of(task: Task) -> Callable[[str], object]:
    """How the user is warned."""
    return task.progress.warn if task.progress else _log.warning


def _warn_of_slow_products(task: Task, device: torch.device) -> None:
    """Emulated bfloat16 takes twice as long as float32, and says nothing of it."""
    is_rounded = task.settings.precision == "bfloat16"
    if is_rounded and device.type == "cpu" and not multiplies_bfloat16_fast():
        _warning_of(task)(
            f"{task.stage}.precision: bfloat16 is slower than float32 on this processor, which has"
            " no such products"
        )


def _open_recorder(task: Task) -> MetricRecorder | None:
    if task.recording is None or dist.get_rank() > 0:
        return None
    where = task.recording
    return MetricRecorder(where.uri, where.run_id, where.spool, system_seconds=where.system_seconds)


def _evaluate(
    task: Task, catalog: Catalog, nodes: NodePartition, users: Tensor, items: Tensor
) -> dict[str, Any]:
    """Figures of validation and test, with slices; a collective call."""
    training = Csr.load(task.graphs.training)
    names: tuple[Literal["valid", "test"], ...] = ("valid", "test")
    figures: dict[str, Any] = {}
    for name in names:
        settings = task.evaluation
        split = Split.from_catalog(
            catalog, name, training, settings.mask_valid, num_users=settings.num_users
        )
        result = evaluate_rows(split, users, items, nodes, settings)
        figures[name] = dataclasses.asdict(result)
    return figures


def _write_vectors(folder: Path, nodes: NodePartition, vectors: Vectors) -> None:
    """Each rank writes its own rows into one file per table: nothing is gathered."""
    _write_rows(vectors_file(folder, USER), nodes.users, vectors.users)
    _write_rows(vectors_file(folder, ITEM), nodes.items, vectors.items)
    for name, shares in vectors.item_shares.items():
        # Only explanations read them: half precision does.
        _write_rows(folder / SHARES / f"{name}.npy", nodes.items, shares.half())
    if vectors.degrees is not None:
        of_users, of_items = (degrees[:, None] for degrees in vectors.degrees)
        _write_rows(folder / f"{USER}_degrees.npy", nodes.users, of_users)
        _write_rows(folder / f"{ITEM}_degrees.npy", nodes.items, of_items)
    dist.barrier()


def _write_rows(path: Path, partition: RowPartition, rows: Tensor) -> None:
    values = rows.detach().cpu().numpy()
    file = create_shared(path, partition.num_rows, rows.shape[1], values.dtype)
    file[partition.block(dist.get_rank())] = values
    if isinstance(file, np.memmap):
        file.flush()


def _read_rows(path: Path, block: slice, device: torch.device) -> Tensor:
    return torch.as_tensor(np.array(np.load(path, mmap_mode="r")[block]), device=device)
