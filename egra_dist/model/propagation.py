"""Exact propagation: a sparse matrix whose rows are spread over the ranks.

Each rank holds the rows it owns. Before a product it receives the few rows of the other ranks that
its own rows point at (the *halo*); which ones is planned once.
"""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import RowPartition
from egra_dist.model.exchange import exchange, rank, swap, world_size
from egra_dist.model.sparse import SparseMatrix


class PartitionedMatrix:
    """The rows of a sparse matrix that this rank owns.

    Args:
        rows: Own rows ``[num_own_rows, num_columns]``; columns are positions in ``columns``.
        columns: Who owns which row of the matrix that is multiplied.
        device: Where the products run.
    """

    def __init__(self, rows: Csr, columns: RowPartition, device: torch.device) -> None:
        own = columns.block(rank())
        is_halo = (rows.indices < own.start) | (rows.indices >= own.stop)
        halo = np.unique(rows.indices[is_halo])
        self._halo = _HaloPlan(halo, columns, device)
        local = np.where(
            is_halo,
            own.stop - own.start + np.searchsorted(halo, rows.indices),
            rows.indices - own.start,
        ).astype(np.int32)
        num_columns = own.stop - own.start + len(halo)
        self._product = SparseMatrix(Csr(rows.indptr, local, rows.values, num_columns), device)

    @property
    def num_halo_rows(self) -> int:
        """Rows received from other ranks for each product."""
        return self._halo.num_rows

    def __matmul__(self, dense: Tensor) -> Tensor:
        """Multiplies with a partitioned dense matrix.

        Args:
            dense: ``[num_own_columns, dim]``, this rank's rows of the dense matrix.

        Returns:
            ``[num_own_rows, dim]``, this rank's rows of the product.
        """
        return self._product @ self._halo.extend(dense)

    def rows_times(self, rows: Tensor, dense: Tensor, plain: Tensor | None = None) -> Tensor:
        """Some rows of the product; the halo travels as for all.

        Args:
            rows: Own rows, distinct, ``int64 [num_rows]``.
            dense: ``[num_own_columns, dim]``.
            plain: Own rows of the dense matrix that are wanted, too, ``int64 [num_plain]``.

        Returns:
            ``[num_rows + num_plain, dim]``.
        """
        return self._product.rows_times(rows, self._halo.extend(dense), plain)

    def transposed_times(self, dense: Tensor) -> Tensor:
        """This rank's rows of the transpose's product, ``[num_own_columns, dim]``; no gradient.

        Args:
            dense: ``[num_own_rows, dim]``.
        """
        return self._halo.add_up(self._product.transposed_times(dense))


class _HaloPlan:
    """Which rows to send to whom so that everybody has its halo."""

    def __init__(
        self, halo: np.ndarray[Any, Any], columns: RowPartition, device: torch.device
    ) -> None:
        self.num_rows = len(halo)
        num_ranks = world_size()
        self._num_received = np.bincount(columns.owner_of(halo), minlength=num_ranks).tolist()
        self._num_sent = [0] * num_ranks
        self._sent = torch.empty(0, dtype=torch.int64, device=device)
        if num_ranks > 1:
            self._agree(torch.as_tensor(halo.astype(np.int64)), columns, device)

    def _agree(self, halo: Tensor, columns: RowPartition, device: torch.device) -> None:
        counts = torch.tensor(self._num_received, device=device)
        asked = torch.empty_like(counts)
        dist.all_to_all_single(asked, counts)
        self._num_sent = asked.tolist()
        wanted = exchange(halo.to(device), self._num_received, self._num_sent)
        self._sent = wanted - columns.block(rank()).start

    def extend(self, dense: Tensor) -> Tensor:
        """Own rows and below them the halo: ``[num_own + num_halo, dim]``, with gradients."""
        return dense if world_size() == 1 else _Extend.apply(dense, self)

    def fetch(self, dense: Tensor) -> Tensor:
        """:meth:`extend` without gradients."""
        extended = dense.new_empty(len(dense) + self.num_rows, *dense.shape[1:])
        own, halo = extended.split([len(dense), self.num_rows])
        own.copy_(dense)
        incoming, wanted = halo.split(self._num_received), self._sent.split(self._num_sent)
        swap(
            dense,
            self._num_sent,
            self._num_received,
            write=lambda other, sent: torch.index_select(dense, 0, wanted[other], out=sent),
            read=lambda other, came: incoming[other].copy_(came),
        )
        return extended

    def add_up(self, extended: Tensor) -> Tensor:
        """Own rows with what the others have for them: the transpose of :meth:`extend`."""
        if world_size() == 1:
            return extended
        own, halo = extended.split([len(extended) - self.num_rows, self.num_rows])
        total, outgoing = own.clone(), halo.split(self._num_received)
        places = self._sent.split(self._num_sent)
        swap(
            extended,
            self._num_received,
            self._num_sent,
            write=lambda other, sent: sent.copy_(outgoing[other]),
            read=lambda other, came: total.index_add_(0, places[other], came),
        )
        return total


class _Extend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, halo: _HaloPlan) -> Tensor:
        ctx.halo = halo
        return halo.fetch(dense.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.halo.add_up(gradients[0].contiguous()), None


def mean_of_layers(
    matrix: PartitionedMatrix, embeddings: Tensor, num_layers: int, rows: Tensor | None = None
) -> Tensor:
    """``mean_{l=0..L} N(A)^l E`` (LightGCN, equation 8; METHOD, stage 1).

    Args:
        matrix: ``N(A)`` over the nodes.
        embeddings: ``[num_own_nodes, dim]``.
        num_layers: ``L``.
        rows: The own nodes that are wanted, distinct, ``int64 [num_rows]``; all when None.

    Returns:
        ``[num_rows, dim]``.
    """
    if rows is None:
        rows = torch.arange(len(embeddings), device=embeddings.device)
    return _MeanOfLayers.apply(embeddings, matrix, num_layers, rows)


class _MeanOfLayers(torch.autograd.Function):
    """The last layer is computed for the wanted rows alone."""

    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, matrix: PartitionedMatrix, num_layers: int, rows: Tensor
    ) -> Tensor:
        ctx.matrix, ctx.num_layers, ctx.num_nodes = matrix, num_layers, len(embeddings)
        ctx.save_for_backward(rows)
        layer, total = embeddings.detach(), embeddings.index_select(0, rows)
        for _ in range(num_layers - 1):
            layer = matrix @ layer
            total += layer.index_select(0, rows)
        if num_layers > 0:
            total += matrix.rows_times(rows, layer)
        return total / (num_layers + 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (rows,) = ctx.saved_tensors
        share = gradients[0] / (ctx.num_layers + 1)
        own = share.new_zeros(ctx.num_nodes, share.shape[1]).index_copy_(0, rows, share)
        total = own
        for _ in range(ctx.num_layers):
            total = ctx.matrix.transposed_times(total).add_(own)
        return total, None, None, None
