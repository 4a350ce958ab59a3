"""Modalities become one vector per row, with the gradient written out.

Taken apart by autograd, the same takes twice as long: every elementwise step leaves a matrix as
large as all modalities together.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def fuse(
    views: Tensor,
    behavior: Tensor,
    query: nn.Linear,
    query_out: nn.Linear,
    gates: Sequence[nn.Linear],
    dtype: torch.dtype,
) -> Tensor:
    """``Side = (sum_m sigmoid(G_m H) * (P_m - C) + C) / (M + 1)``, row by row.

    ``C = sum_m att_m P_m`` with ``att = softmax_m(w tanh(Q P_m + b))``. A modality that is 0 in
    a row is missing there: it gets no attention, and nothing specific.

    Args:
        views: ``P [num_rows, num_modalities, dim]``.
        behavior: ``H [num_rows, dim]``.
        query: ``Q`` and its bias.
        query_out: ``w``, without a bias.
        gates: Every ``G_m`` and its bias.
        dtype: Type of the products with ``Q`` and ``G_m``, forwards and backwards.

    Returns:
        ``[num_rows, dim]``.
    """
    return _Fusion.apply(
        views,
        behavior,
        query.weight,
        query.bias,
        query_out.weight[0],
        torch.cat([layer.weight for layer in gates]),
        torch.cat([layer.bias for layer in gates]),
        dtype,
    )


class _Fusion(torch.autograd.Function):
    """See :func:`fuse`; all ``G_m`` stand below each other."""

    @staticmethod
    def forward(
        ctx: Any,
        views: Tensor,
        behavior: Tensor,
        query: Tensor,
        query_bias: Tensor,
        query_out: Tensor,
        gate: Tensor,
        gate_bias: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        num_rows, num_modalities, dim = views.shape
        is_there = torch.linalg.vector_norm(views, torch.inf, dim=2) > 0
        low_views, low_behavior = views.reshape(-1, dim).to(dtype), behavior.to(dtype)
        low_query, low_gate = query.to(dtype), gate.to(dtype)
        hidden = (low_views @ low_query.T).to(views.dtype).add_(query_bias).tanh_()
        logits = (hidden @ query_out).view(num_rows, num_modalities)
        logits.masked_fill_(~is_there, torch.finfo(views.dtype).min)
        attention = torch.softmax(logits, dim=1)
        common = (attention[:, :, None] * views).sum(1)
        gates = (low_behavior @ low_gate.T).to(views.dtype).add_(gate_bias).sigmoid_()
        gates = gates.view_as(views)
        if not is_there.all():
            gates *= is_there[:, :, None]
        low = (low_views, low_behavior, low_query, low_gate)
        ctx.save_for_backward(views, query_out, hidden, attention, common, gates, *low)
        specific = (views - common[:, None]).mul_(gates).sum(1)
        return specific.add_(common).div_(num_modalities + 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        views, query_out, hidden, attention, common, gates, *low = ctx.saved_tensors
        low_views, low_behavior, low_query, low_gate = low
        _, num_modalities, dim = views.shape
        of_side = (gradients[0] / (num_modalities + 1))[:, None]
        of_gates = torch.ops.aten.sigmoid_backward(
            (views - common[:, None]).mul_(of_side), gates
        ).flatten(1)
        of_common = of_side * (1 - gates.sum(1, keepdim=True))
        of_attention = (views * of_common).sum(2)
        of_logits = torch.ops.aten._softmax_backward_data(of_attention, attention, 1, views.dtype)
        of_hidden = torch.ops.aten.tanh_backward(of_logits.reshape(-1, 1) * query_out, hidden)
        of_views = (gates * of_side).addcmul_(attention[:, :, None], of_common)
        low_hidden, low_gates = of_hidden.to(low_query.dtype), of_gates.to(low_gate.dtype)
        of_views.view(-1, dim).add_(low_hidden @ low_query)
        full = views.dtype
        return (
            of_views,
            (low_gates @ low_gate).to(full),
            (low_hidden.T @ low_views).to(full),
            of_hidden.sum(0),
            hidden.T @ of_logits.flatten(),
            (low_gates.T @ low_behavior).to(full),
            of_gates.sum(0),
            None,
        )
