"""An order in which near centroids stand near each other.

Lists are stored in this order and tasks take ranges of it, so that the rows that visit a task's
lists come from few others: wherever the order is cut into as many equal pieces of work as there
are machines, most visits stay within a piece.
"""

import torch
from torch import Tensor

_POWER_ITERATIONS = 8


def bisection_order(centroids: Tensor, weights: Tensor) -> Tensor:
    """Orders centroids by recursive bisection.

    A set is cut at its weighted median along its principal direction, and so are its halves.

    Args:
        centroids: ``float32 [num_centroids, dim]``.
        weights: ``[num_centroids]`` work behind each.

    Returns:
        ``int64 [num_centroids]`` a permutation.
    """
    leaves = []
    waiting = [torch.arange(len(centroids))]
    while waiting:
        part = waiting.pop()
        if len(part) <= 1:
            leaves.append(part)
        else:
            near, far = _halves(centroids[part], weights[part].double())
            waiting += [part[far], part[near]]
    return torch.cat(leaves)


def _halves(centroids: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Positions on either side of the weighted median, neither side empty."""
    order = torch.argsort(centroids @ _principal_direction(centroids), stable=True)
    reached = weights[order].cumsum(0)
    middle = int((reached < reached[-1] / 2).sum())
    middle = min(max(1, middle), len(order) - 1)
    return order[:middle], order[middle:]


def _principal_direction(rows: Tensor) -> Tensor:
    """Power iteration from the row farthest from the mean: ``[dim]``."""
    centered = rows - rows.mean(0)
    direction = centered[centered.square().sum(1).argmax()]
    for _ in range(_POWER_ITERATIONS):
        direction = torch.nn.functional.normalize(centered.T @ (centered @ direction), dim=0)
    return direction
