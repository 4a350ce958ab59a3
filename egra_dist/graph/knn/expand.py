"""From neighbours among distinct rows back to neighbours among the table's rows."""

import numpy as np
from numpy.typing import NDArray

from egra_dist.graph.knn.duplicates import Duplicates
from egra_dist.graph.knn.graph import NO_NEIGHBOR

_BLOCK_PAIRS = 4_000_000


def expand(
    groups: NDArray[np.int32],
    scores: NDArray[np.float32],
    own_scores: NDArray[np.float32],
    duplicates: Duplicates,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Neighbours of every row of the table.

    Args:
        groups: ``[num_groups, k]`` neighbouring groups of each group, -1 for none.
        scores: ``[num_groups, k]``.
        own_scores: ``[num_groups]`` score of a row with itself, hence with its duplicates; not
            read when there are none.
        duplicates: The groups.

    Returns:
        ``int32 [num_rows, k]`` neighbours, -1 for none, and ``float32 [num_rows, k]`` scores.
    """
    if len(groups) == duplicates.num_rows:  # all usable and distinct: groups are rows
        return groups, scores
    k = groups.shape[1]
    neighbors = np.full((duplicates.num_rows, k), NO_NEIGHBOR, np.int32)
    all_scores = np.full((duplicates.num_rows, k), -np.inf, np.float32)
    if duplicates.all_distinct:
        rows = duplicates.members
        neighbors[rows] = np.where(groups < 0, NO_NEIGHBOR, rows[groups])
        all_scores[rows] = scores
        return neighbors, all_scores
    num_groups = max(1, _BLOCK_PAIRS // (k + 1) ** 2)
    for start in range(0, len(groups), num_groups):
        block = np.arange(start, min(start + num_groups, len(groups)))
        lists = _lists_with_own(block, groups[block], scores[block], own_scores[block], duplicates)
        _write_members(block, *lists, duplicates, neighbors, all_scores)
    return neighbors, all_scores


def _lists_with_own(
    block: NDArray, groups: NDArray, scores: NDArray, own_scores: NDArray, duplicates: Duplicates
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ``k + 1`` best table rows of each group, its own members among them."""
    width = groups.shape[1] + 1
    groups = np.concatenate([block[:, None], groups], axis=1)
    scores = np.concatenate([own_scores[:, None], scores], axis=1)
    sizes = np.diff(duplicates.offsets)[groups]
    sizes = np.where(groups < 0, 0, np.minimum(sizes, width))
    owner = np.repeat(np.arange(len(block)), sizes.sum(1))
    total = np.cumsum(sizes.ravel())
    within = np.arange(total[-1]) - np.repeat(total - sizes.ravel(), sizes.ravel())
    first = np.repeat(duplicates.offsets[groups.ravel()], sizes.ravel())
    rows = duplicates.members[first + within]
    values = np.repeat(scores.ravel(), sizes.ravel())
    order = np.lexsort((rows, -values, owner))
    owner, rows, values = owner[order], rows[order], values[order]
    starts = np.searchsorted(owner, np.arange(len(block)))
    rank = np.arange(len(owner)) - starts[owner]
    kept = rank < width
    best_rows = np.full((len(block), width), NO_NEIGHBOR, np.int64)
    best_scores = np.full((len(block), width), -np.inf, np.float32)
    best_rows[owner[kept], rank[kept]] = rows[kept]
    best_scores[owner[kept], rank[kept]] = values[kept]
    return best_rows, best_scores


def _write_members(
    block: NDArray,
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    duplicates: Duplicates,
    neighbors: NDArray[np.int32],
    all_scores: NDArray[np.float32],
) -> None:
    """Gives every member its group's list without the member itself."""
    sizes = np.diff(duplicates.offsets)[block]
    first, last = duplicates.offsets[block[0]], duplicates.offsets[block[-1] + 1]
    members = duplicates.members[first:last]
    owner = np.repeat(np.arange(len(block)), sizes)
    k = neighbors.shape[1]
    own = rows[owner] == members[:, None]
    own[~own.any(1), -1] = True
    neighbors[members] = rows[owner][~own].reshape(-1, k)
    all_scores[members] = scores[owner][~own].reshape(-1, k)
