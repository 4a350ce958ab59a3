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
    log_counts: Tensor | None = None,
) -> Tensor:
    """In-batch InfoNCE: ``-log(exp(cos(a_j, c_p)/t) / sum_k n_k exp(cos(a_j, c_k)/t))``.

    METHOD, stage 1. Duplicate candidates are kept as they come, or each stands once and counts.

    Args:
        anchors: ``[num_anchors, dim]``.
        candidates: ``[num_candidates, dim]``.
        positives: ``int64 [num_anchors]``, the candidate that belongs to each anchor.
        temperature: ``t``.
        dtype: Type of the products of all pairs; that of the rows when None.
        log_counts: ``log n [num_candidates]``, how often each occurs; once when None.

    Returns:
        ``[num_anchors]``.
    """
    anchors = functional.normalize(anchors, dim=1)
    candidates = functional.normalize(candidates, dim=1)
    numerator = (anchors * candidates[positives]).sum(1) / temperature
    bias = candidates.new_zeros(len(candidates)) if log_counts is None else log_counts
    return _LogSumExp.apply(anchors, candidates, bias, 1 / temperature, dtype) - numerator


def sampled_softmax(
    users: Tensor,
    candidates: Tensor,
    positives: Tensor,
    log_shares: Tensor,
    temperature: float,
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
        dtype: Type of the products of all pairs; that of the rows when None.

    Returns:
        ``[num_users]``.
    """
    products = (users * candidates[positives]).sum(1) / temperature
    total = _LogSumExp.apply(users, candidates, -log_shares, 1 / temperature, dtype)
    return total - (products - log_shares[positives])


class _LogSumExp(torch.autograd.Function):
    """``logsumexp_k(scale * <a_j, c_k> + bias_k)``.

    Its gradient by an anchor is the mean of the candidates under the softmax: attention with the
    candidates as keys and as values gives both at once, and no matrix of all pairs is kept. That
    by the candidates is attention the other way round. These are what a step costs most.
    """

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        candidates: Tensor,
        bias: Tensor,
        scale: float,
        dtype: torch.dtype | None,
    ) -> Tensor:
        low, others = (rows.to(dtype or anchors.dtype) for rows in (anchors, candidates))
        means, log_sums = _attend(low, others, others, bias, scale)
        ctx.save_for_backward(low, others, bias, means, log_sums)
        ctx.scale = scale
        return log_sums

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        low, others, bias, means, log_sums = ctx.saved_tensors
        of_sums = ctx.scale * gradients[0][:, None]
        values = (of_sums * low).to(low.dtype)
        received, log_totals = _attend(others, low, values, -log_sums, ctx.scale)
        of_candidates = (log_totals + bias).exp()[:, None] * received
        return of_sums * means, of_candidates, None, None, None


def _attend(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """``softmax_k(scale * <q_j, k_k> + bias_k)``: means of the values, and log of its sums.

    Returns:
        ``[num_queries, dim]`` and ``[num_queries]``, in the type of the bias.
    """
    if queries.device.type == "cpu" and len(queries) and len(keys):
        # torch's public function does not return the sums.
        means, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *(rows[None, None] for rows in (queries, keys, values)),
            attn_mask=bias.expand(len(queries), -1)[None, None],
            scale=scale,
        )
        return means[0, 0].to(bias.dtype), log_sums[0, 0].to(bias.dtype)
    logits = torch.addmm(bias, queries.to(bias.dtype), keys.T.to(bias.dtype), alpha=scale)
    return torch.softmax(logits, 1) @ values.to(bias.dtype), logits.logsumexp(1)
