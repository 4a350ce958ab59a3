"""What one evaluation looks at: whose held-out items, what is masked, which slices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog
from egra_dist.evaluate.entries import gather_rows
from egra_dist.evaluate.slices import Slice, standard_slices
from egra_dist.graph.behavior import training_matrix
from egra_dist.graph.csr import Csr
from egra_dist.graph.products import column_counts

_SAMPLE_SEED = 0
"""Fixed: figures of models and runs compare if they are those of the same users."""


@dataclass(frozen=True)
class HeldOut:
    """The positives of one split: what must be found, and for whom.

    Attributes:
        users: ``int64 [num_positives]``, ascending.
        items: ``int64 [num_positives]``; no pair occurs twice.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]

    @classmethod
    def from_interactions(
        cls, users: NDArray[np.integer], items: NDArray[np.integer], num_items: int
    ) -> "HeldOut":
        """The interactions of a split, in any order."""
        keys = np.unique(users.astype(np.int64) * num_items + items)
        return cls(*np.divmod(keys, num_items))

    def sample(self, num_users: int) -> "HeldOut":
        """The positives of so many of the users, always the same ones."""
        users = np.unique(self.users)
        if len(users) <= num_users:
            return self
        chosen = np.random.default_rng(_SAMPLE_SEED).choice(users, num_users, replace=False)
        kept = np.isin(self.users, chosen)
        return HeldOut(self.users[kept], self.items[kept])

    def within(self, start: int, stop: int) -> "HeldOut":
        """The positives of the users ``start <= user < stop``."""
        begin, end = np.searchsorted(self.users, [start, stop])
        return HeldOut(self.users[begin:end], self.items[begin:end])


@dataclass(frozen=True)
class Split:
    """One evaluation's data, the same on every rank.

    Attributes:
        held_out: What must be found.
        training: User x item matrix of training interactions, which are never ranked.
        also_seen: Another such matrix, e.g. of validation positives when testing.
        slices: What is reported apart.
    """

    held_out: HeldOut
    training: Csr
    also_seen: Csr | None = None
    slices: Sequence[Slice] = ()

    @classmethod
    def from_catalog(
        cls,
        catalog: Catalog,
        name: Literal["valid", "test"],
        training: Csr,
        mask_valid: bool = False,
        sliced: bool = True,
        num_users: int | None = None,
    ) -> "Split":
        """A catalogue's validation or test split.

        Args:
            catalog: The catalogue.
            name: Which split.
            training: User x item matrix of its training interactions.
            mask_valid: Whether validation positives are masked when testing.
            sliced: Whether the standard slices are reported; off saves time while training.
            num_users: Users that are evaluated, a sample; all when None.
        """
        held_out = HeldOut.from_interactions(*catalog.interactions(name), catalog.num_items)
        if num_users is not None:
            held_out = held_out.sample(num_users)
        also_seen = training_matrix(catalog, "valid") if mask_valid and name == "test" else None
        slices: list[Slice] = []
        if sliced:
            item_counts = column_counts(training)
            present = {m: catalog.features(m).present for m in catalog.modalities}
            slices = standard_slices(item_counts, np.diff(training.indptr), present)
        return cls(held_out, training, also_seen, slices)

    def seen_by(self, users: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What must not be ranked, as positions in ``users`` and items."""
        matrices = [self.training] if self.also_seen is None else [self.training, self.also_seen]
        rows, items = zip(*(gather_rows(matrix, users) for matrix in matrices), strict=True)
        return np.concatenate(rows), np.concatenate(items)
