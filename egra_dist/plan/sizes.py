"""How large a catalogue is: counted, or as somebody expects it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog
from egra_dist.errors import UserError

_BATCH_ROWS = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """What decides the cost of a run.

    Attributes:
        num_users: Users.
        num_items: Items.
        num_interactions: Training interactions.
        modalities: Width of each modality's features.
        user_degrees: ``[num_distinct, 2]``: a number of training interactions, and how many users
            have it.
        item_degrees: The same of items.
    """

    num_users: int
    num_items: int
    num_interactions: int
    modalities: Mapping[str, int]
    user_degrees: NDArray[np.int64]
    item_degrees: NDArray[np.int64]

    @property
    def num_nodes(self) -> int:
        """Users and items."""
        return self.num_users + self.num_items


def sizes_of_catalog(catalog: Catalog) -> Sizes:
    """Counts a catalogue; reads its training interactions once, in blocks."""
    users = np.zeros(catalog.num_users, dtype=np.int64)
    items = np.zeros(catalog.num_items, dtype=np.int64)
    for some_users, some_items in catalog.iter_interactions("train", _BATCH_ROWS):
        users += np.bincount(some_users, minlength=len(users))
        items += np.bincount(some_items, minlength=len(items))
    facts = catalog.manifest.counts["modalities"]
    return Sizes(
        catalog.num_users,
        catalog.num_items,
        catalog.num_interactions("train"),
        {name: int(facts[name]["dim"]) for name in catalog.modalities},
        _histogram(users),
        _histogram(items),
    )


def sizes_of_counts(
    num_users: int, num_items: int, num_interactions: int, modalities: Mapping[str, int]
) -> Sizes:
    """Sizes of a catalogue that is not there; every node has the mean number of interactions.

    Where degrees differ, fewer rows travel between workers than are predicted from their mean.
    """
    return Sizes(
        num_users,
        num_items,
        num_interactions,
        modalities,
        np.array([[round(num_interactions / num_users), num_users]]),
        np.array([[round(num_interactions / num_items), num_items]]),
    )


def parse_modalities(texts: Sequence[str]) -> dict[str, int]:
    """Widths by name, of texts ``name:width``.

    Raises:
        UserError: If one is something else.
    """
    widths = {}
    for text in texts:
        name, _, width = text.partition(":")
        if not name.isidentifier() or not width.isdecimal() or int(width) < 1:
            raise UserError(f"--modality {text}: must be NAME:WIDTH, e.g. image:512")
        widths[name] = int(width)
    return widths


def parse_bytes(text: str) -> int:
    """Bytes of a text such as ``16G`` or ``512M`` (units of 1024).

    Raises:
        UserError: If it is something else.
    """
    units = {"K": 1, "M": 2, "G": 3, "T": 4}
    number, unit = text.rstrip("iB")[:-1], text.rstrip("iB")[-1:].upper()
    try:
        found = int(float(number) * 1024 ** units[unit])
    except (KeyError, ValueError):
        raise UserError(f"--memory-per-worker {text}: must be a size, e.g. 16G") from None
    if found <= 0:
        raise UserError(f"--memory-per-worker {text}: must be above 0")
    return found


def _histogram(degrees: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack(np.unique(degrees, return_counts=True), axis=1)
