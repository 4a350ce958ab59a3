"""A sparse matrix on one rank, and its products with dense ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from egra_dist.graph.csr import Csr

_Csr = tuple[Tensor, Tensor, Tensor]
"""Columns, offsets of the rows, and values."""


class SparseMatrix:
    """A sparse matrix on one rank, for products with dense ones.

    ``embedding_bag`` with per-sample weights is a sparse-dense product, and on CPUs its FBGEMM
    kernel is two to three times faster than torch's CSR product; on GPUs the latter is faster. The
    gradient is a product with the transpose, which is kept.

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

    def rows_times(self, rows: Tensor, dense: Tensor, plain: Tensor | None = None) -> Tensor:
        """Some rows of the product, and below them some rows of the dense matrix itself.

        Args:
            rows: ``int64 [num_rows]``.
            dense: ``[num_columns, dim]``.
            plain: ``int64 [num_plain]`` rows of the dense matrix: taken along with the product, a
                gradient for all of it is not made twice.

        Returns:
            ``[num_rows + num_plain, dim]``.
        """
        chosen = _rows_of(self._forward, rows)
        if plain is not None:
            chosen = _with_plain_rows(chosen, plain)
        return _SparseDense.apply(dense, chosen, lambda: _transposed(chosen, len(dense)))


def _rows_of(matrix: _Csr, rows: Tensor) -> _Csr:
    indices, offsets, values = matrix
    starts = offsets[rows]
    counts = offsets[rows + 1] - starts
    new = functional.pad(counts.cumsum(0), (1, 0))
    shifts = torch.repeat_interleave(starts - new[:-1], counts)
    entries = torch.arange(len(shifts), device=rows.device) + shifts
    return indices[entries], new.to(offsets.dtype), values[entries]


def _with_plain_rows(matrix: _Csr, rows: Tensor) -> _Csr:
    """Below a matrix, rows that have a single 1 each."""
    indices, offsets, values = matrix
    ends = offsets[-1] + torch.arange(1, len(rows) + 1, device=rows.device)
    return (
        torch.cat([indices, rows.to(indices.dtype)]),
        torch.cat([offsets, ends.to(offsets.dtype)]),
        torch.cat([values, values.new_ones(len(rows))]),
    )


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
    if dense.is_cuda:
        shape = (len(offsets) - 1, len(dense))
        # Checks are left out: they would wait for the device at every product.
        rows = torch.sparse_csr_tensor(
            offsets, indices, values.to(dense.dtype), shape, check_invariants=False
        )
        return rows @ dense
    return functional.embedding_bag(
        indices,
        dense,
        offsets,
        mode="sum",
        per_sample_weights=values.to(dense.dtype),
        include_last_offset=True,
    )
