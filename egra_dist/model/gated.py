"""Items, gated by what their features say, multiplied with a graph; the gradient written out.

Taken apart by autograd, every elementwise step leaves a matrix as large as all items, and what is
multiplied would be copied to where other ranks see it.
"""

from typing import Any

import torch
from torch import Tensor

from egra_dist.model.propagation import PartitionedMatrix


def gated_product(
    graph: PartitionedMatrix, embeddings: Tensor, logits: Tensor, missing: Tensor
) -> Tensor:
    """``S_m (E_i * sigmoid(logits))``, where an item that lacks the modality counts as 0.

    Args:
        graph: ``S_m``, this rank's rows.
        embeddings: ``E_i``, this rank's rows ``[num_own_items, dim]``.
        logits: ``[num_own_items, dim]``.
        missing: Those that lack the modality, ``int64 [num_missing]``.

    Returns:
        ``[num_own_items, dim]``.
    """
    return _GatedProduct.apply(embeddings, logits, missing, graph)


class _GatedProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        embeddings: Tensor,
        logits: Tensor,
        missing: Tensor,
        graph: PartitionedMatrix,
    ) -> Tensor:
        gates = torch.sigmoid(logits)
        ctx.save_for_backward(embeddings, gates, missing)
        ctx.graph = graph
        gated = torch.mul(embeddings, gates, out=graph.place(embeddings))
        return graph.times(gated.index_fill_(0, missing, 0))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        embeddings, gates, missing = ctx.saved_tensors
        of_gated = ctx.graph.transposed_times(gradients[0]).index_fill_(0, missing, 0)
        of_logits = torch.ops.aten.sigmoid_backward(of_gated * embeddings, gates)
        return of_gated.mul_(gates), of_logits, None, None
