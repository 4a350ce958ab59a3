"""The k-core: what is left when users and items with few interactions are removed, repeatedly."""

import numpy as np
from numpy.typing import NDArray


def k_core(users: NDArray[np.integer], items: NDArray[np.integer], k: int) -> NDArray[np.int64]:
    """Finds the largest part in which every user and every item has ``k`` interactions or more.

    Args:
        users: ``[num_interactions]``, from 0; no pair of user and item twice.
        items: ``[num_interactions]``, from 0.
        k: Least number of interactions; 0 and 1 keep everything.

    Returns:
        Positions of the interactions that stay, ascending.
    """
    kept = np.arange(len(users))
    while len(kept):
        stays = (np.bincount(users[kept]) >= k)[users[kept]]
        stays &= (np.bincount(items[kept]) >= k)[items[kept]]
        if stays.all():
            break
        kept = kept[stays]
    return kept
