"""Slices: for which items and which users a model works."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HISTORY_BINS = (("history_0", 0, 0), ("history_1_4", 1, 4), ("history_5_9", 5, 9),
                ("history_10_19", 10, 19), ("history_20_up", 20, None))  # fmt: skip
"""Users by number of training interactions (name, least, most); fixed, so catalogues compare."""


@dataclass(frozen=True)
class Slice:
    """Part of an evaluation.

    Attributes:
        name: E.g. ``tail``.
        items: ``bool [num_items]``; only positives among these count (everything is still ranked).
        users: ``bool [num_users]``; only these users count.
    """

    name: str
    items: NDArray[np.bool_] | None = None
    users: NDArray[np.bool_] | None = None

    def contains(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which positives belong to it: ``bool [num_positives]``."""
        inside = np.ones(len(users), dtype=bool)
        if self.items is not None:
            inside &= self.items[items]
        if self.users is not None:
            inside &= self.users[users]
        return inside


def standard_slices(
    item_counts: NDArray[np.integer],
    history_lengths: NDArray[np.integer],
    present: Mapping[str, NDArray[np.bool_]] | None = None,
) -> list[Slice]:
    """The slices every run reports.

    Args:
        item_counts: ``[num_items]`` training interactions of each item.
        history_lengths: ``[num_users]`` training interactions of each user.
        present: Per modality which items have it, ``bool [num_items]``.

    Returns:
        ``head``, ``torso``, ``tail``, ``cold``; ``history_*``; and ``no_<modality>`` for each
        modality that some item lacks.
    """
    missing = {f"no_{name}": ~np.asarray(mask) for name, mask in (present or {}).items()}
    return [
        *popularity_slices(item_counts),
        *history_slices(history_lengths),
        *(Slice(name, items=mask) for name, mask in missing.items() if mask.any()),
    ]


def popularity_slices(item_counts: NDArray[np.integer]) -> list[Slice]:
    """Items by popularity: each of three groups holds a third of the training interactions.

    ``head`` are the most popular items, down to the one with which they cover a third of the
    interactions; ``torso`` those that cover the second third; ``tail`` the rest that occur in
    training; ``cold`` those that do not. The four are disjoint and hold every item.
    """
    counts = np.asarray(item_counts, dtype=np.int64)
    order = np.argsort(-counts, kind="stable")
    covered_before = np.cumsum(counts[order]) - counts[order]
    third = np.empty(len(counts), dtype=np.int64)
    third[order] = 3 * covered_before // max(1, counts.sum())
    third[counts == 0] = 3
    return [
        Slice(name, items=third == i) for i, name in enumerate(["head", "torso", "tail", "cold"])
    ]


def history_slices(history_lengths: NDArray[np.integer]) -> list[Slice]:
    """Users by number of training interactions: see :data:`HISTORY_BINS`."""
    lengths = np.asarray(history_lengths)
    return [
        Slice(name, users=(lengths >= least) & (lengths <= (np.inf if most is None else most)))
        for name, least, most in HISTORY_BINS
    ]
