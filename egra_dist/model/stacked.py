"""Two matrices as one, without a copy where they lie so in memory."""

from typing import Any

import torch
from torch import Tensor


def stacked(upper: Tensor, lower: Tensor) -> Tensor:
    """One below the other, ``[num_upper + num_lower, dim]``, with gradients to both.

    Where ``lower`` begins in memory where ``upper`` ends, nothing is copied; the result is then not
    to be written.
    """
    return _Stacked.apply(upper, lower)


class _Stacked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, upper: Tensor, lower: Tensor) -> Tensor:
        ctx.sizes = [len(upper), len(lower)]
        if not _lie_so(upper, lower):
            return torch.cat([upper, lower])
        shape = (sum(ctx.sizes), *upper.shape[1:])
        storage, start = upper.untyped_storage(), upper.storage_offset()
        # Autograd would take a view of an input for a change of it.
        return upper.new_empty(0).set_(storage, start, shape, upper.stride())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return gradients[0].split(ctx.sizes)


def _lie_so(upper: Tensor, lower: Tensor) -> bool:
    return (
        upper.untyped_storage().data_ptr() == lower.untyped_storage().data_ptr()
        and upper.storage_offset() + upper.numel() == lower.storage_offset()
        and upper.is_contiguous()
        and lower.is_contiguous()
        and upper.shape[1:] == lower.shape[1:]
        and upper.dtype == lower.dtype
    )
