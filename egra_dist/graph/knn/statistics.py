"""What a graph looks like, for its manifest and for tracking."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_PERCENTILES = (50, 90, 99, 99.9)


def describe_graph(neighbors: NDArray[np.int32], num_usable: int) -> dict[str, Any]:
    """Edges, rows with fewer than k, and how unequally rows are chosen as neighbours.

    Args:
        neighbors: ``int32 [num_rows, k]``, -1 for none.
        num_usable: Rows that have a vector.
    """
    num_rows, k = neighbors.shape
    in_degrees = np.zeros(num_rows, np.int64)
    num_short = 0
    for start in range(0, num_rows, 1 << 20):
        block = neighbors[start : start + (1 << 20)]
        in_degrees += np.bincount(block[block >= 0], minlength=num_rows)
        found = (block >= 0).sum(axis=1)
        num_short += int(((found > 0) & (found < k)).sum())
    num_edges = int(in_degrees.sum())
    top = np.sort(in_degrees)[::-1][: max(1, num_rows // 100)]
    in_degrees = in_degrees if num_rows else np.zeros(1, np.int64)
    return {
        "num_edges": num_edges,
        "share_short_rows": num_short / max(1, num_usable),
        "in_degree": {
            **{f"p{share:g}": float(np.percentile(in_degrees, share)) for share in _PERCENTILES},
            "max": int(in_degrees.max()),
        },
        "share_of_edges_into_top_percent": float(top.sum() / max(1, num_edges)),
    }


def describe_lists(sizes: NDArray[np.int64], lists_per_row: float) -> dict[str, Any]:
    """Number of lists and how unequal they are: a skew of 1 when all are of one size.

    Args:
        sizes: ``[num_lists]`` rows of each.
        lists_per_row: Lists in which a row is compared, its own included.
    """
    sizes = sizes.astype(float)
    return {
        "num_lists": len(sizes),
        "lists_per_row": lists_per_row,
        "largest_list": int(sizes.max()),
        "list_skew": float(len(sizes) * (sizes**2).sum() / sizes.sum() ** 2),
    }
