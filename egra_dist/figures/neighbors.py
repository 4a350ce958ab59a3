"""What the item graph is like: its degrees, whether modalities agree with it, some examples."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog
from egra_dist.graph.csr import Csr
from egra_dist.graph.knn import NO_NEIGHBOR, KnnGraph
from egra_dist.graph.partition import take_rows
from egra_dist.graph.products import column_counts
from egra_dist.tracking.plots import COLORS, bars, panels, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_ROWS = 100_000
_NUM_EXAMPLES = 12
_NUM_SHOWN = 5
_NUM_BINS = 60


def item_edges(behavior: Csr, num_users: int, max_rows: int = _MAX_ROWS) -> Csr:
    """The item-item edges of a merged graph.

    Args:
        behavior: ``N(A) [num_users + num_items, num_users + num_items]``.
        num_users: Users; items stand behind them.
        max_rows: The most items whose edges are read: the first ones, which are a sample, since
            a catalogue's items are in shuffled order.

    Returns:
        ``[num_rows, num_items]``, each edge of weight 1.
    """
    num_items = behavior.num_rows - num_users
    rows = take_rows(behavior, [slice(num_users, num_users + min(num_items, max_rows))])
    is_item = rows.indices >= num_users
    before = np.concatenate(([0], np.cumsum(is_item)))
    items = rows.indices[is_item] - np.int32(num_users)
    return Csr(before[rows.indptr], items, None, num_items)


def agreement(edges: Csr, features: Mapping[str, Csr]) -> dict[str, float]:
    """Share of the edges that also stand in the feature graph of each modality.

    Args:
        edges: Item-item edges of the first items, ``[num_rows, num_items]``.
        features: ``S_m [num_items, num_items]`` by modality.

    Returns:
        The share for each modality, and for ``any`` and ``all`` of them; nothing without edges.
    """
    keys = _keys(edges)
    if not len(keys) or not features:
        return {}
    own = [slice(0, edges.num_rows)]
    found: dict[str, NDArray[Any]] = {
        name: np.isin(keys, _keys(take_rows(graph, own)), assume_unique=True)
        for name, graph in features.items()
    }
    together = np.stack(list(found.values()))
    found |= {"any": np.any(together, axis=0), "all": np.all(together, axis=0)}
    return {name: float(inside.mean()) for name, inside in found.items()}


def _keys(graph: Csr) -> NDArray[np.int64]:
    """One number for each edge."""
    rows = np.repeat(np.arange(graph.num_rows, dtype=np.int64), np.diff(graph.indptr))
    return rows * graph.num_columns + graph.indices


def item_degrees(
    behavior: Csr, num_users: int, counts: NDArray[np.integer]
) -> dict[str, NDArray[np.int64]]:
    """How many neighbours each item has, and of how many it is one; ``[num_items]`` each.

    Args:
        behavior: ``N(A)``, as in :func:`item_edges`.
        num_users: Users; items stand behind them.
        counts: ``[num_items]`` training interactions, which stand in the same rows and columns.
    """
    return {
        "out": np.diff(behavior.indptr)[num_users:] - counts,
        "in": column_counts(behavior)[num_users:] - counts,
    }


@styled
def draw_item_graph(
    degrees: Mapping[str, NDArray[np.integer]], shares: Mapping[str, float]
) -> "Figure":
    """How many neighbours items have, and how far modalities agree with the edges.

    Args:
        degrees: As :func:`item_degrees` gives them.
        shares: As :func:`agreement` gives them.
    """
    figure, (left, right) = panels(2)
    most = max(int(values.max(initial=0)) for values in degrees.values())
    bins = (np.arange(0, most + 2, max(1, most // _NUM_BINS)) - 0.5).tolist()
    names = {"out": "neighbours of an item", "in": "items whose neighbour it is"}
    for color, (direction, values) in zip(COLORS, degrees.items(), strict=False):
        left.hist(values, bins=bins, color=color, alpha=0.6, label=names[direction])
    left.set(title="degrees in the item graph", xlabel="degree", ylabel="items", yscale="log")
    left.legend()
    bars(right, list(shares), [100 * share for share in shares.values()], position=2)
    right.set(title="edges also among a modality's neighbours", ylabel="% of edges", ylim=(0, 100))
    return figure


def example_rows(catalog: Catalog, counts: NDArray[np.integer], graph: KnnGraph) -> dict[str, list]:
    """A table of some items, from the most to the least popular, with their nearest neighbours.

    Args:
        catalog: The items.
        counts: ``[num_items]`` training interactions.
        graph: Their neighbours.

    Returns:
        Columns of equal length; titles are raw ids where the catalogue has none.
    """
    order = np.argsort(-counts, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(_NUM_EXAMPLES, len(order))).astype(int)]
    names = catalog.item_column("title")
    names = catalog.raw_ids("items") if names is None else names
    table: dict[str, list] = {
        "item": [],
        "training interactions": [],
        "rank": [],
        "neighbour": [],
        "score": [],
    }
    for item in chosen:
        for rank, neighbor in enumerate(graph.neighbors[item, :_NUM_SHOWN]):
            if neighbor != NO_NEIGHBOR:
                near = str(names[int(neighbor)]), round(float(graph.scores[item, rank]), 4)
                row = (str(names[int(item)]), int(counts[item]), rank + 1, *near)
                for column, value in zip(table.values(), row, strict=True):
                    column.append(value)
    return table
