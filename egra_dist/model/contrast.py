"""The contrastive loss that aligns two representations, over the batches of all ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from egra_dist.config import AlignmentSettings
from egra_dist.model.alignment import alignment_degrees, entity_weights
from egra_dist.model.exchange import rank
from egra_dist.model.gather import gather_kinds
from egra_dist.model.losses import info_nce
from egra_dist.model.ranking import first_occurrences, places


@dataclass(frozen=True)
class Aligned:
    """Users, or items, of a batch, as often as they count.

    Attributes:
        side: What modalities say of this rank's, ``[num_entities, dim]``.
        behavior: What behaviour says of them, ``[num_entities, dim]``.
        ids: Of every rank, ``int64 [num_entities]``.
        is_first: Of every rank, which ones no earlier one equals.
    """

    side: Tensor
    behavior: Tensor
    ids: Sequence[Tensor]
    is_first: Sequence[Tensor]

    @classmethod
    def of(
        cls, side: Tensor, behavior: Tensor, ids: Sequence[Tensor], settings: AlignmentSettings
    ) -> "Aligned":
        """Those of a batch, given a row for each entity of this rank's triplets."""
        is_first = first_occurrences(ids)
        if not settings.unique_ids:
            return cls(side, behavior, ids, is_first)
        own = is_first[rank()]
        distinct = [part[mask] for part, mask in zip(ids, is_first, strict=True)]
        every = [torch.ones_like(part, dtype=torch.bool) for part in distinct]
        return cls(side[own], behavior[own], distinct, every)

    @property
    def sizes(self) -> list[int]:
        """How many each rank has."""
        return [len(part) for part in self.ids]

    @property
    def own(self) -> slice:
        """This rank's among those of all ranks."""
        start = sum(self.sizes[: rank()])
        return slice(start, start + len(self.side))

    @property
    def candidates(self) -> Tensor:
        """This rank's ``H``; rows of an entity are alike, so that it stands once."""
        return self.behavior[self.is_first[rank()]]

    @property
    def num_candidates(self) -> list[int]:
        """How many each rank has."""
        return [int(mask.sum()) for mask in self.is_first]

    @cached_property
    def places(self) -> Tensor:
        """Which candidate each entity is, over all ranks."""
        ids = torch.cat(list(self.ids))
        return places(ids, ids[torch.cat(list(self.is_first))])


def align(
    kinds: Sequence[Aligned], settings: AlignmentSettings, dtype: torch.dtype
) -> list[Tensor]:
    """Weighted InfoNCE of each kind against those of all ranks; a collective call.

    Args:
        kinds: Users, and items.
        settings: Weights and temperature.
        dtype: Type of the products of all pairs.

    Returns:
        This rank's share of the mean over a kind's entities.
    """
    parts, sizes = [], []
    for kind in kinds:
        parts += [alignment_degrees(kind.side, kind.behavior)[:, None], kind.candidates]
        sizes += [kind.sizes, kind.num_candidates]
    gathered = gather_kinds(parts, sizes)
    losses = []
    for kind, degrees, candidates in zip(kinds, gathered[::2], gathered[1::2], strict=True):
        counts = torch.bincount(kind.places, minlength=len(candidates)).to(kind.side.dtype)
        stands_at = kind.places[kind.own]
        of_entities = info_nce(
            kind.side, candidates, stands_at, settings.temperature, dtype, counts.log()
        )
        weights = entity_weights(degrees[:, 0], settings)[kind.own]
        losses.append((weights * of_entities).sum() / sum(kind.sizes))
    return losses
