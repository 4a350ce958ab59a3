"""Exact propagation: a sparse matrix whose rows are spread over the ranks.

Each rank holds the rows it owns. Before a product it receives the few rows of the other ranks that
its own rows point at (the *halo*); which ones is planned once.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import RowPartition
from egra_dist.model.exchange import exchange, rank, world_size

_Csr = tuple[Tensor, Tensor, Tensor]
"""Columns, offsets of the rows, and values."""


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

    def rows_times(self, rows: Tensor, dense: Tensor) -> Tensor:
        """Some rows of the product; the halo travels as for all.

        Args:
            rows: Own rows, distinct, ``int64 [num_rows]``.
            dense: ``[num_own_columns, dim]``.

        Returns:
            ``[num_rows, dim]``.
        """
        return self._product.rows_times(rows, self._halo.extend(dense))

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
        """Own rows and below them the halo: ``[num_own + num_halo, dim]``."""
        if world_size() == 1:
            return dense
        sent = dense.index_select(0, self._sent)
        return torch.cat([dense, exchange(sent, self._num_sent, self._num_received)])

    def add_up(self, extended: Tensor) -> Tensor:
        """Own rows with what the others have for them: the transpose of :meth:`extend`."""
        if world_size() == 1:
            return extended
        own, halo = extended.split([len(extended) - self.num_rows, self.num_rows])
        received = exchange(halo, self._num_received, self._num_sent)
        return own.index_add(0, self._sent, received)


class SparseMatrix:
    """A sparse matrix on one rank, for products with dense ones.

    ``embedding_bag`` with per-sample weights is a sparse-dense product, and on CPUs its FBGEMM
    kernel is two to three times faster than torch's CSR product. The gradient is a product with
    the transpose, which is kept.

    Args:
        matrix: ``[num_rows, num_columns]``.
        device: Where the products run.
    """

    def __init__(self, matrix: Csr, device: torch.device) -> None:
        import scipy.sparse

        values = matrix.values
        if values is None:
            values = np.ones(matrix.num_entries, dtype=np.float32)
        shape = (matrix.num_rows, matrix.num_columns)
        rows = scipy.sparse.csr_array((values, matrix.indices, matrix.indptr), shape=shape)
        self._forward = _on_device(rows, device)
        self._backward = _on_device(scipy.sparse.csr_array(rows.T), device)

    def __matmul__(self, dense: Tensor) -> Tensor:
        """``[num_rows, dim]`` for a dense matrix ``[num_columns, dim]``."""
        return _SparseDense.apply(dense, self._forward, lambda: self._backward)

    def transposed_times(self, dense: Tensor) -> Tensor:
        """``[num_columns, dim]``; no gradient."""
        return _multiply(self._backward, dense.detach())

    def rows_times(self, rows: Tensor, dense: Tensor) -> Tensor:
        """Rows ``int64 [num_rows]`` of the product with ``[num_columns, dim]``."""
        chosen = _rows_of(self._forward, rows)
        return _SparseDense.apply(dense, chosen, lambda: _transposed(chosen, len(dense)))


def _rows_of(matrix: _Csr, rows: Tensor) -> _Csr:
    indices, offsets, values = matrix
    starts = offsets[rows]
    counts = offsets[rows + 1] - starts
    new = functional.pad(counts.cumsum(0), (1, 0))
    shifts = torch.repeat_interleave(starts - new[:-1], counts)
    entries = torch.arange(len(shifts), device=rows.device) + shifts
    return indices[entries], new.to(offsets.dtype), values[entries]


def _transposed(matrix: _Csr, num_columns: int) -> _Csr:
    indices, offsets, values = matrix
    rows = torch.arange(len(offsets) - 1, device=offsets.device, dtype=indices.dtype)
    order = torch.argsort(indices)
    counts = torch.bincount(indices, minlength=num_columns)
    starts = functional.pad(counts.cumsum(0), (1, 0)).to(offsets.dtype)
    return torch.repeat_interleave(rows, torch.diff(offsets))[order], starts, values[order]


def _on_device(matrix: Any, device: torch.device) -> _Csr:
    index_type = torch.int32 if matrix.nnz < 2**31 else torch.int64
    return (
        torch.as_tensor(matrix.indices).to(device, index_type),
        torch.as_tensor(matrix.indptr).to(device, index_type),
        torch.as_tensor(matrix.data).to(device, torch.float32),
    )


class _SparseDense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: _Csr, transpose: Callable[[], _Csr]) -> Tensor:
        ctx.transpose = transpose
        # Detached, as embedding_bag otherwise prepares a gradient of its own, at twice the cost.
        return _multiply(matrix, dense.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _multiply(ctx.transpose(), gradients[0].contiguous()), None, None


def _multiply(matrix: _Csr, dense: Tensor) -> Tensor:
    indices, offsets, values = matrix
    return functional.embedding_bag(
        indices,
        dense,
        offsets,
        mode="sum",
        per_sample_weights=values.to(dense.dtype),
        include_last_offset=True,
    )


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
