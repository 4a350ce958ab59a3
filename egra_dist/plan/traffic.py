"""Bytes that reach the largest worker of a training in a step."""

import numpy as np

from egra_dist.config import ItemGraphSettings, TrainingSettings
from egra_dist.graph.partition import SMALL_SELECTION
from egra_dist.plan import sampled
from egra_dist.plan.memory import SELECTING, Worker, largest_worker, widths_of
from egra_dist.plan.sampled import FLOAT
from egra_dist.plan.sizes import Sizes


def bytes_per_step(
    sizes: Sizes,
    training: TrainingSettings,
    graph: ItemGraphSettings | None,
    k: int,
    num_workers: int,
) -> int:
    """Bytes that reach the largest worker in a step, forwards and back."""
    worker = largest_worker(sizes, graph, k, num_workers)
    model, away = training.model, 1 - 1 / num_workers
    num_modalities = len(widths_of(sizes, training))
    if training.propagation.mode == "sampled":
        around = sampled.surroundings(sizes, training, graph, num_modalities, num_workers)
        return sampled.received_bytes(around, training, num_workers)
    rows = 0.0
    if model.name in SELECTING:
        rows += _rows_to_a_batch(sizes, training, worker, num_workers)
        rows += num_modalities * worker.item_halo
    elif model.name != "vbpr":
        rows += model.num_layers * worker.halo
        if model.name == "freedom":
            rows += num_modalities * model.freedom.item_layers * worker.item_halo
    batch = 3 * training.batch_size / num_workers * away * (1 + num_modalities)
    aligned = 2 * training.batch_size * away if num_modalities else 0
    return round(2 * FLOAT * model.dim * (rows + batch + aligned))


def _rows_to_a_batch(
    sizes: Sizes, training: TrainingSettings, worker: Worker, num_workers: int
) -> float:
    """Rows received on the way to the nodes of a batch, the mean of there and back.

    The last layer, and what users gather of modalities, is multiplied where the neighbours are:
    its rows travel, not theirs. So does the first gradient, unless the batch is much of the graph.
    """
    num_layers, away = training.model.num_layers, 1 - 1 / num_workers
    num_modalities = len(widths_of(sizes, training))
    users = distinct_rows(sizes.user_degrees, training.batch_size)
    items = distinct_rows(sizes.item_degrees, training.batch_size, training.batch_size)
    rows = num_modalities * users * away
    if num_layers == 0:
        return rows
    there = (users + items) * away
    is_small = users + items < SMALL_SELECTION * (sizes.num_users + sizes.num_items)
    back = there if is_small else worker.halo
    return rows + (num_layers - 1) * worker.halo + (there + back) / 2


def distinct_rows(degrees: np.ndarray, num_edges: int, num_uniform: int = 0) -> float:
    """Expected number of distinct nodes of some random edges, and of some nodes drawn evenly.

    Args:
        degrees: ``[num_distinct, 2]`` degrees, and how many nodes have them.
        num_edges: Edges that are drawn.
        num_uniform: Nodes that are drawn beside them.
    """
    num_nodes, total = degrees[:, 1].sum(), (degrees[:, 0] * degrees[:, 1]).sum()
    missed = (1 - degrees[:, 0] / max(total, 1)) ** num_edges * (1 - 1 / num_nodes) ** num_uniform
    return float((degrees[:, 1] * (1 - missed)).sum())
