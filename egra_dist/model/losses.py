"""Ranking and contrastive losses, one value per row; who calls them takes the mean."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def bpr(positive_scores: Tensor, negative_scores: Tensor) -> Tensor:
    """``-log sigmoid(pos - neg)`` (Rendle et al. 2009).

    Args:
        positive_scores: ``[num_triplets]``.
        negative_scores: ``[num_triplets]``.

    Returns:
        ``[num_triplets]``.
    """
    return functional.softplus(negative_scores - positive_scores)


def info_nce(anchors: Tensor, candidates: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """In-batch InfoNCE: ``-log(exp(cos(a_j, c_p)/t) / sum_k exp(cos(a_j, c_k)/t))``.

    METHOD, stage 1. Duplicate candidates are kept as they come.

    Args:
        anchors: ``[num_anchors, dim]``.
        candidates: ``[num_candidates, dim]``.
        positives: ``int64 [num_anchors]``, the candidate that belongs to each anchor.
        temperature: ``t``.

    Returns:
        ``[num_anchors]``.
    """
    anchors = functional.normalize(anchors, dim=1)
    candidates = functional.normalize(candidates, dim=1)
    numerator = (anchors * candidates[positives]).sum(1) / temperature
    return _LogSumExpOfProducts.apply(anchors, candidates, 1 / temperature) - numerator


class _LogSumExpOfProducts(torch.autograd.Function):
    """``logsumexp_k(scale * <a_j, c_k>)`` for unit vectors.

    Cosines are bounded, so ``exp(scale * (cos - 1))`` needs no search for the maximum; one
    exponential per pair serves both directions. This is what a step of training costs most.
    """

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, candidates: Tensor, scale: float) -> Tensor:
        shift = torch.full((1,), -scale, dtype=anchors.dtype, device=anchors.device)
        shares = torch.addmm(shift, anchors, candidates.T, alpha=scale).exp_()
        total = shares.sum(1)
        ctx.save_for_backward(anchors, candidates, shares, total)
        ctx.scale = scale
        return total.log() + scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        anchors, candidates, shares, total = ctx.saved_tensors
        row_weights = (gradients[0] * ctx.scale / total)[:, None]
        return row_weights * (shares @ candidates), shares.T @ (row_weights * anchors), None
