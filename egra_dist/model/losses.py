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


def info_nce(
    anchors: Tensor,
    candidates: Tensor,
    positives: Tensor,
    temperature: float,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """In-batch InfoNCE: ``-log(exp(cos(a_j, c_p)/t) / sum_k exp(cos(a_j, c_k)/t))``.

    METHOD, stage 1. Duplicate candidates are kept as they come.

    Args:
        anchors: ``[num_anchors, dim]``.
        candidates: ``[num_candidates, dim]``.
        positives: ``int64 [num_anchors]``, the candidate that belongs to each anchor.
        temperature: ``t``.
        dtype: Type of the products of all pairs; that of the rows when None.

    Returns:
        ``[num_anchors]``.
    """
    anchors = functional.normalize(anchors, dim=1)
    candidates = functional.normalize(candidates, dim=1)
    numerator = (anchors * candidates[positives]).sum(1) / temperature
    bound = torch.full((1,), 1 / temperature, dtype=anchors.dtype, device=anchors.device)
    # Cosines are bounded, so that no search for the maximum is needed.
    log_sums = _LogSumExp.apply(anchors, candidates, -bound, 1 / temperature, bound, dtype)
    return log_sums - numerator


def sampled_softmax(
    users: Tensor,
    candidates: Tensor,
    positives: Tensor,
    log_shares: Tensor,
    temperature: float,
    is_cosine: bool = False,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Softmax over sampled items, corrected for how often each is sampled.

    ``-log(exp(s_jp) / sum_k exp(s_jk))`` with ``s_jk = <u_j, c_k> / t - log q_k`` (Bengio &
    Senecal 2008; Yi et al. 2019).

    Args:
        users: ``[num_users, dim]``.
        candidates: Distinct items ``[num_candidates, dim]``.
        positives: ``int64 [num_users]``, the candidate that each user interacted with.
        log_shares: ``log q [num_candidates]``; zeros for no correction.
        temperature: ``t``.
        is_cosine: Whether all rows have norm 1: no search for the largest product is needed.
        dtype: Type of the products of all pairs; that of the rows when None.

    Returns:
        ``[num_users]``.
    """
    products = (users * candidates[positives]).sum(1) / temperature
    bias, bound = -log_shares, None
    if is_cosine:
        bound = 1 / temperature + bias.max()
        bias = bias - bound
    total = _LogSumExp.apply(users, candidates, bias, 1 / temperature, bound, dtype)
    return total - (products - log_shares[positives])


class _LogSumExp(torch.autograd.Function):
    """``logsumexp_k(scale * <a_j, c_k> + bias_k)``.

    One exponential per pair serves both directions: this is what a step of training costs most.
    """

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        candidates: Tensor,
        bias: Tensor,
        scale: float,
        bound: Tensor | None,
        dtype: torch.dtype | None,
    ) -> Tensor:
        kind = dtype or anchors.dtype
        low, others = anchors.to(kind), candidates.to(kind)
        shares = torch.addmm(bias.to(kind), low, others.T, alpha=scale)
        if bound is None:
            bound = shares.amax(1)
            shares -= bound[:, None]
        # Summed in float32 and rounded; asked for a float32 result, torch copies all pairs first.
        total = shares.exp_().sum(1).to(anchors.dtype)
        ctx.save_for_backward(low, others, shares, total)
        ctx.scale = scale
        return total.log() + bound

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        low, others, shares, total = ctx.saved_tensors
        row_weights = (gradients[0] * ctx.scale / total)[:, None]
        of_anchors = row_weights * (shares @ others)
        of_candidates = shares.T @ (row_weights * low).to(low.dtype)
        return of_anchors, of_candidates.to(total.dtype), None, None, None, None
