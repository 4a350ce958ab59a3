"""Bytes that the largest worker of a training holds.

Pure formulas (``egra_dist.train.setup`` puts the same parts together); those of a sampled step are
in ``sampled.py``, what travels in ``traffic.py``.
"""

from dataclasses import dataclass

import numpy as np

from egra_dist.config import (
    BaselineSettings,
    EvaluationSettings,
    ItemGraphSettings,
    TrainingSettings,
)
from egra_dist.plan import sampled
from egra_dist.plan.sampled import FLOAT
from egra_dist.plan.sizes import Sizes

HALF = 2
INDEX = 4
POINTER = 8
PER_INTERACTION = 50
"""What ranking holds, at its peak, of a training interaction that is masked (measured)."""
LIBRARIES = 600 * 2**20
"""What a worker's process holds before it has any data: Python, torch, TorchRec, Ray."""
RECIPROCITY = 0.5
"""Share of the edges of a kNN graph whose reverse is one, too; hubs lower it, clusters raise it."""
SELECTING = ("lightgcn", "mgcn", "gume", "egra")
"""Models that propagate to the nodes of a batch alone."""


@dataclass(frozen=True)
class Worker:
    """The largest worker, and what it has of everything.

    Attributes:
        users: Rows of the user table.
        items: Rows of the item table.
        halo: Rows of other workers that a product with the behaviour graph needs.
        item_halo: Rows of other workers' items that a product with a feature graph needs.
        user_halo: Rows of other workers' items that its users' interactions need.
    """

    users: int
    items: int
    halo: int
    item_halo: int
    user_halo: int

    @property
    def nodes(self) -> int:
        """Users and items."""
        return self.users + self.items


def csr_bytes(num_rows: int, num_entries: int, has_values: bool = True) -> int:
    """Bytes of the arrays of a matrix on disk, see :meth:`egra_dist.graph.csr.Csr.save`."""
    return POINTER * (num_rows + 1) + num_entries * (INDEX + FLOAT * has_values)


def num_item_edges(sizes: Sizes, graph: ItemGraphSettings | None) -> int:
    """Item-item edges that are merged into the behaviour graph, about."""
    if graph is None or graph.beta == 0:
        return 0
    factors = {"directed": 1.0, "union": 2 - RECIPROCITY, "mutual": RECIPROCITY}
    return round(sizes.num_items * graph.k * factors[graph.direction])


def expected_halo(degrees: np.ndarray, num_workers: int, more: float = 0.0) -> float:
    """Expected number of other workers' nodes that a worker's rows point at.

    Nodes stand in random order, so that each of a node's ``d`` neighbours is a given worker's with
    chance ``1 / W``: of the nodes of the others it needs each with ``1 - (1 - 1/W)^d``.

    Args:
        degrees: ``[num_distinct, 2]`` degrees, and how many nodes have them.
        num_workers: ``W``.
        more: Further edges of every node.
    """
    if num_workers == 1:
        return 0.0
    missed = (1 - 1 / num_workers) ** (degrees[:, 0] + more)
    return float((degrees[:, 1] * (1 - missed)).sum() * (1 - 1 / num_workers))


def largest_worker(
    sizes: Sizes, graph: ItemGraphSettings | None, k: int, num_workers: int
) -> Worker:
    """What the largest worker has.

    Args:
        sizes: The catalogue.
        graph: The item graph that is merged; None where there is none.
        k: Neighbours per item in a feature graph.
        num_workers: Number of workers.
    """
    more = num_item_edges(sizes, graph) / sizes.num_items
    of_users = expected_halo(sizes.user_degrees, num_workers)
    of_items = expected_halo(sizes.item_degrees, num_workers, more)
    neighbors = np.array([[k, sizes.num_items]])
    return Worker(
        -(-sizes.num_users // num_workers),
        -(-sizes.num_items // num_workers),
        round(of_users + of_items),
        round(expected_halo(neighbors, num_workers)),
        round(expected_halo(sizes.item_degrees, num_workers)),
    )


def memory(
    sizes: Sizes,
    training: TrainingSettings,
    graph: ItemGraphSettings | None,
    k: int,
    num_workers: int,
) -> dict[str, int]:
    """Bytes of the largest worker, by what they are for; see :func:`largest_worker`."""
    worker = largest_worker(sizes, graph, k, num_workers)
    model = training.model
    bytes_of_table = FLOAT if training.optimizer.table_type == "float32" else HALF
    rows = training.tables.num_rows({"user": sizes.num_users, "item": sizes.num_items})
    users, items = (-(-number // num_workers) for number in rows.values())
    tables = bytes_of_table * (users * model.user_dim + items * model.dim)
    adam = training.optimizer.tables == "adam"
    optimizer = 2 * tables if adam else FLOAT * (users + items)
    widths = widths_of(sizes, training)
    parts = {
        "tables": tables,
        "gradients": tables,
        "optimizer": optimizer,
        "checkpoint": tables + optimizer,  # the copy that is written in the background
        "graph": _graph_bytes(sizes, training, graph, k, num_workers, worker),
        "features": FLOAT * worker.items * sum(widths),
        "halo": FLOAT * model.dim * worker.halo if model.name != "vbpr" else 0,
        "activations": _activation_bytes(training, len(widths), num_workers, worker),
        # The order of an epoch, of all interactions on every worker.
        "batches": POINTER * (sizes.num_interactions + sizes.num_items),
        "libraries": LIBRARIES,
    }
    if training.propagation.mode == "exact":
        return parts
    around = sampled.surroundings(sizes, training, graph, len(widths), num_workers)
    step = sampled.step_bytes(around, training, widths)
    step["activations"] += FLOAT * _num_pairs(training, len(widths), num_workers)
    return parts | step


def ranking_bytes(sizes: Sizes, evaluation: EvaluationSettings, num_workers: int) -> int:
    """What a worker holds while it ranks: what its users have chosen, and a tile of scores."""
    num_users = min(evaluation.num_users or sizes.num_users, sizes.num_users)
    num_masked = sizes.num_interactions * num_users / sizes.num_users / num_workers
    scores = evaluation.user_batch_size * evaluation.item_tile_size
    return round(PER_INTERACTION * num_masked) + FLOAT * scores


def merged_graph_of(
    training: TrainingSettings, own: ItemGraphSettings, is_main: bool
) -> ItemGraphSettings | None:
    """The item graph that a training propagates over; None where there is none."""
    if isinstance(training, BaselineSettings):
        return training.merged_graph
    if is_main and training.model.uses_item_graph and own.source != "none":
        return own
    return None


def widths_of(sizes: Sizes, training: TrainingSettings) -> list[int]:
    """Columns of the features of each modality that the model sees."""
    seen = training.model.seen_of(sizes.modalities)
    return [sizes.modalities[name] for name in seen if name in sizes.modalities]


def _graph_bytes(
    sizes: Sizes,
    training: TrainingSettings,
    graph: ItemGraphSettings | None,
    k: int,
    num_workers: int,
    worker: Worker,
) -> int:
    """Own rows of every matrix and of its transpose, which the gradient needs.

    Where rows of a batch are multiplied apart, each of several workers knows its columns, too.
    """
    name, num_modalities = training.model.name, len(widths_of(sizes, training))
    if name == "vbpr":
        return 0
    edges = (2 * sizes.num_interactions + num_item_edges(sizes, graph)) / num_workers
    total = _product_bytes(edges, worker.nodes, worker.halo)
    if name in SELECTING and num_workers > 1:
        total += edges * (INDEX + FLOAT) + INDEX * sizes.num_nodes
    if name == "freedom":
        kept = 1 - training.model.freedom.edge_dropout
        total += _product_bytes(edges * kept, worker.nodes, worker.halo)
    if name in ("mgcn", "gume", "egra", "freedom"):
        own_neighbors = worker.items * k
        total += num_modalities * _product_bytes(own_neighbors, worker.items, worker.item_halo)
    if name in ("mgcn", "gume", "egra") and num_modalities:
        interactions = sizes.num_interactions / num_workers
        total += _product_bytes(interactions, worker.users, worker.user_halo + worker.items)
        if num_workers > 1:
            total += interactions * (INDEX + FLOAT) + INDEX * sizes.num_users
    return round(total)


def _product_bytes(num_entries: float, num_rows: int, num_others: int) -> float:
    """A matrix and its transpose, with 32-bit pointers."""
    return 2 * num_entries * (INDEX + FLOAT) + INDEX * (2 * num_rows + num_others)


def _activation_bytes(
    training: TrainingSettings, num_modalities: int, num_workers: int, worker: Worker
) -> int:
    """What a step holds at its peak, of nodes and of the batch; an estimate.

    Of nodes: embeddings, a layer, their sum and a gradient; of each modality four steps of the
    items' way and their gradients, and all nodes' views twice. Of the batch: its rows, and the
    products of all pairs of both alignments, forwards and back.
    """
    dim, batch = training.model.dim, training.batch_size
    rows = 4.0 * worker.nodes + num_modalities * (6 * worker.items + 2 * worker.nodes)
    rows += 3 * batch / num_workers * (8 + 4 * num_modalities)
    return round(FLOAT * dim * rows) + FLOAT * _num_pairs(training, num_modalities, num_workers)


def _num_pairs(training: TrainingSettings, num_modalities: int, num_workers: int) -> int:
    """Products of all pairs of a batch, forwards and back."""
    batch = training.batch_size
    pairs = 6 * batch * batch / num_workers if num_modalities else 0.0
    if training.ranking.loss == "softmax":
        pairs += 3 * batch / num_workers * (batch + training.ranking.num_negatives)
    return round(pairs)
