"""What a step on sampled neighbourhoods takes; graphs and features stay memory-mapped.

Rather too much than too little: nodes are taken to be drawn uniformly, while on a skewed catalogue
popular ones are drawn again and again.
"""

import math
from dataclasses import dataclass

from egra_dist.config import ItemGraphSettings, TrainingSettings
from egra_dist.plan.sizes import Sizes

FLOAT = 4
_EDGE = 16
"""Bytes of an edge of a drawn neighbourhood, forwards and transposed."""
_PREPARED = 4
"""The batch that is worked on, and those that are drawn ahead."""
_COPIES = 4
"""Of each row that is looked up: the row, a layer or two, a gradient."""


@dataclass(frozen=True)
class Surroundings:
    """What a worker draws around its share of a batch.

    Attributes:
        rows: Embeddings that are looked up.
        sources: Rows of features, of each modality.
        edges: Edges of all layers and modalities.
    """

    rows: int
    sources: int
    edges: int


def surroundings(
    sizes: Sizes,
    training: TrainingSettings,
    graph: ItemGraphSettings | None,
    num_modalities: int,
    num_workers: int,
) -> Surroundings:
    """Draws the neighbourhood of a share of a batch in the mean; see the module for its bias.

    Args:
        sizes: The catalogue.
        training: The training, whose ``propagation`` has the fan-outs.
        graph: The item graph that is merged; None where there is none.
        num_modalities: Modalities that are seen.
        num_workers: Workers that share a batch.
    """
    settings, share = training.propagation, training.batch_size / num_workers
    users = users_drawn = distinct(share, sizes.num_users)
    items = items_drawn = distinct(2 * share, sizes.num_items)
    first, edges = (users, items), 0.0
    for layer in range(training.model.num_layers):
        of_both, of_items = settings.fan_outs(layer)
        of_items = min(of_items, 2 * graph.k) if graph else 0
        new_items = users * min(of_both, sizes.num_interactions / sizes.num_users)
        new_users = items * min(of_both, sizes.num_interactions / sizes.num_items)
        new_items += items * of_items
        edges += new_users + new_items
        users, items = distinct(new_users, sizes.num_users), distinct(new_items, sizes.num_items)
        users_drawn, items_drawn = users_drawn + users, items_drawn + items
    sources = 0.0
    if num_modalities:
        per_user = min(settings.modality_items, sizes.num_interactions / sizes.num_users)
        gathered = distinct(first[0] * per_user + first[1], sizes.num_items)
        sources = distinct(gathered * settings.feature_neighbors, sizes.num_items)
        edges += first[0] * per_user + num_modalities * gathered * settings.feature_neighbors
        items_drawn += num_modalities * sources
    rows = distinct(users_drawn, sizes.num_users) + distinct(items_drawn, sizes.num_items)
    return Surroundings(math.ceil(rows), math.ceil(sources), math.ceil(edges))


def distinct(num_draws: float, num_nodes: int) -> float:
    """Expected number of different nodes among uniform draws."""
    return num_nodes * -math.expm1(-num_draws / num_nodes)


def step_bytes(around: Surroundings, training: TrainingSettings, widths: list[int]) -> dict:
    """Bytes of what surrounds a step, by what they are for."""
    row = FLOAT * training.model.dim
    return {
        "gradients": around.rows * row,
        "graph": 0,
        "features": _PREPARED * FLOAT * around.sources * sum(widths),
        "halo": around.rows * row,
        "activations": (_COPIES * around.rows + 6 * len(widths) * around.sources) * row,
        "batches": _PREPARED * _EDGE * around.edges,
    }


def received_bytes(around: Surroundings, training: TrainingSettings, num_workers: int) -> int:
    """Bytes that reach a worker in a step: rows, and the gradients of its own."""
    away = 1 - 1 / num_workers
    aligned = 2 * training.batch_size
    return round(2 * FLOAT * training.model.dim * away * (around.rows + aligned))
