"""What users have chosen, of which the latest weighs most: the mean of its vectors."""

import numpy as np
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.timed import Timed, check_times, iter_timed
from egra_dist.graph.csr import Csr, starts_of
from egra_dist.graph.products import multiply_rows, row_blocks


def means_of_latest(
    catalog: Catalog, users: slice, items: NDArray[np.float32], decay: float
) -> NDArray[np.float32]:
    """For each user the weighted mean of the vectors of the items that they chose in training.

    Args:
        catalog: Who chose what, and when.
        users: Of whom.
        items: Final vectors ``[num_items, dim]``, memory-mapped or not.
        decay: What an item weighs against one that was chosen next; those chosen at the same time
            weigh the same.

    Returns:
        ``[len(users), dim]``; zeros for a user who chose nothing.

    Raises:
        UserError: If the order counts and is not known.
    """
    if decay < 1:
        check_times(catalog)
    means = np.zeros((users.stop - users.start, items.shape[1]), np.float32)
    for timed in iter_timed(catalog, users):
        first, last = int(timed.users[0]), int(timed.users[-1])
        weights = latest_weights(timed, decay)
        counts = np.bincount(timed.users - first, minlength=last - first + 1)
        chosen = Csr(starts_of(counts), timed.items, weights, catalog.num_items)
        for rows in row_blocks(chosen, slice(0, chosen.num_rows)):
            start = first - users.start + rows.start
            means[start : start + rows.stop - rows.start] = multiply_rows(chosen, rows, items)
    return means


def latest_weights(timed: Timed, decay: float) -> NDArray[np.float32]:
    """``decay^age`` over its sum for the user; the age counts the later times of that user.

    Args:
        timed: Interactions of whole users.
        decay: In (0, 1].

    Returns:
        ``[num_interactions]``.
    """
    order = np.lexsort((timed.times, timed.users))
    users, times = timed.users[order], timed.times[order]
    is_later = (np.diff(times) != 0) | (np.diff(users) != 0)
    number = np.concatenate([[0], np.cumsum(is_later)])  # of the instant, over all users
    last = np.searchsorted(users, users, side="right") - 1
    decayed = float(decay) ** (number[last] - number)
    sums = np.bincount(users - users[0], weights=decayed)
    weights = np.empty(len(order), np.float32)
    weights[order] = decayed / sums[users - users[0]]
    return weights
