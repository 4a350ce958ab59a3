"""Random masks over a batch that do not depend on how it is shared out among the ranks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from egra_dist.graph.sampler import combine_keys
from egra_dist.model.exchange import rank


def keep_mask(
    sizes: Sequence[int],
    width: int,
    dropout: float,
    step: int,
    number: int,
    device: torch.device,
    seed: int = 0,
) -> Tensor:
    """What this rank keeps of its rows of a batch.

    Args:
        sizes: Rows of each rank.
        width: Entries per row.
        dropout: Share that is not kept.
        step: Global step.
        number: Tells several masks of a step apart.
        device: Where the mask goes.
        seed: Seed of the training.

    Returns:
        ``bool [sizes[rank], width]``.
    """
    key = combine_keys(seed, step, number) % 2**32  # torch's generator looks at no more bits
    random = torch.Generator().manual_seed(key)
    drawn = torch.rand(sum(sizes), width, generator=random)
    first = sum(sizes[: rank()])
    return (drawn[first : first + sizes[rank()]] >= dropout).to(device)
