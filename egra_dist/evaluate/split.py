"""What one evaluation looks at: whose held-out items, what is masked, which slices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog
from egra_dist.evaluate.seen import SeenItems, gather_rows
from egra_dist.evaluate.slices import Slice, standard_slices
from egra_dist.graph.behavior import training_matrix
from egra_dist.graph.csr import Csr


@dataclass(frozen=True)
class HeldOut:
    """The users of one split and what must be found for each.

    Attributes:
        users: ``int64 [num_users]`` users with at least one positive, ascending.
        positives: Row ``i`` holds the positives of ``users[i]``.
    """

    users: NDArray[np.int64]
    positives: Csr

    @classmethod
    def from_interactions(
        cls, users: NDArray[np.integer], items: NDArray[np.integer], num_items: int
    ) -> "HeldOut":
        """Groups the interactions of a split, in any order, by user."""
        keys = np.unique(users.astype(np.int64) * num_items + items)
        evaluated, counts = np.unique(keys // max(1, num_items), return_counts=True)
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        positives = (keys % max(1, num_items)).astype(np.int32)
        return cls(evaluated, Csr(indptr, positives, None, num_items))

    def within(self, start: int, stop: int) -> "HeldOut":
        """The users ``start <= user < stop``."""
        begin, end = np.searchsorted(self.users, [start, stop])
        return self.block(slice(int(begin), int(end)))

    def block(self, rows: slice) -> "HeldOut":
        """A range of the evaluated users."""
        indptr = self.positives.indptr[rows.start : rows.stop + 1]
        items = self.positives.indices[indptr[0] : indptr[-1]]
        positives = Csr(indptr - indptr[0], items, None, self.positives.num_columns)
        return HeldOut(self.users[rows], positives)


@dataclass(frozen=True)
class Split:
    """One evaluation's data, the same on every rank.

    Attributes:
        held_out: Users and their positives.
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
    ) -> "Split":
        """A catalogue's validation or test split.

        Args:
            catalog: The catalogue.
            name: Which split.
            training: User x item matrix of its training interactions.
            mask_valid: Whether validation positives are masked when testing.
            sliced: Whether the standard slices are reported; off saves time while training.
        """
        held_out = HeldOut.from_interactions(*catalog.interactions(name), catalog.num_items)
        also_seen = training_matrix(catalog, "valid") if mask_valid and name == "test" else None
        slices: list[Slice] = []
        if sliced:
            item_counts = np.bincount(training.indices, minlength=catalog.num_items)
            present = {m: catalog.features(m).present for m in catalog.modalities}
            slices = standard_slices(item_counts, np.diff(training.indptr), present)
        return cls(held_out, training, also_seen, slices)

    def seen_by(self, users: NDArray[np.int64], device: torch.device | None = None) -> SeenItems:
        """What must not be ranked for ``users``."""
        matrices = [self.training] if self.also_seen is None else [self.training, self.also_seen]
        rows, items = zip(*(gather_rows(matrix, users) for matrix in matrices), strict=True)
        return SeenItems(
            torch.from_numpy(np.concatenate(rows)).to(device),
            torch.from_numpy(np.concatenate(items)).to(device),
        )
