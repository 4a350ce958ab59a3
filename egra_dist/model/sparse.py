"""A sparse matrix on one rank, and its products with dense ones."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from egra_dist.graph.csr import Csr


class LinearMap(ABC):
    """What dense matrices are multiplied with; rows and columns may be spread over ranks."""

    @abstractmethod
    def times(self, dense: Tensor) -> Tensor:
        """``[num_rows, dim]`` for ``[num_columns, dim]``, of this rank; no gradient."""

    @abstractmethod
    def transposed_times(self, dense: Tensor) -> Tensor:
        """``[num_columns, dim]`` for ``[num_rows, dim]``, of this rank; no gradient."""

    def __matmul__(self, dense: Tensor) -> Tensor:
        """:meth:`times` with a gradient, which is :meth:`transposed_times`."""
        return _Product.apply(dense, self)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, linear: LinearMap) -> Tensor:
        ctx.linear = linear
        return linear.times(dense)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.linear.transposed_times(gradients[0]), None


@dataclass(frozen=True)
class SparseRows:
    """Compressed sparse rows as tensors.

    ``embedding_bag`` with per-sample weights is a sparse-dense product, and on CPUs its FBGEMM
    kernel is two to three times faster than torch's CSR product; on GPUs the latter is faster.

    Attributes:
        indices: Columns, ``int32`` or ``int64 [num_entries]``.
        offsets: Where each row starts, and the last ends, of the same type ``[num_rows + 1]``.
        values: ``float32 [num_entries]``.
        num_columns: Number of columns.
    """

    indices: Tensor
    offsets: Tensor
    values: Tensor
    num_columns: int

    @classmethod
    def of(cls, matrix: Any, device: torch.device) -> "SparseRows":
        """The rows of a ``scipy.sparse.csr_array``."""
        index_type = torch.int32 if matrix.nnz < 2**31 else torch.int64
        return cls(
            torch.as_tensor(matrix.indices).to(device, index_type),
            torch.as_tensor(matrix.indptr).to(device, index_type),
            torch.as_tensor(matrix.data).to(device, torch.float32),
            matrix.shape[1],
        )

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    def times(self, dense: Tensor) -> Tensor:
        """``[num_rows, dim]`` for a dense matrix ``[num_columns, dim]``; no gradient."""
        # Detached, as embedding_bag otherwise prepares a gradient of its own, at twice the cost.
        dense, values = dense.detach().contiguous(), self.values.to(dense.dtype)
        if dense.is_cuda:
            shape = (self.num_rows, len(dense))
            # Checks are left out: they would wait for the device at every product.
            matrix = torch.sparse_csr_tensor(
                self.offsets, self.indices, values, shape, check_invariants=False
            )
            return matrix @ dense
        return functional.embedding_bag(
            self.indices,
            dense,
            self.offsets,
            mode="sum",
            per_sample_weights=values,
            include_last_offset=True,
        )

    def at(self, rows: Tensor) -> "SparseRows":
        """Some rows, ``int64 [num_chosen]``, one below the other."""
        starts = self.offsets[rows]
        counts = self.offsets[rows + 1] - starts
        new = functional.pad(counts.cumsum(0), (1, 0))
        shifts = torch.repeat_interleave(starts - new[:-1], counts)
        entries = torch.arange(len(shifts), device=rows.device) + shifts
        offsets = new.to(self.offsets.dtype)
        return SparseRows(self.indices[entries], offsets, self.values[entries], self.num_columns)

    def above_units(self, columns: Tensor) -> "SparseRows":
        """With rows below that have a single 1 each, at ``columns``, ``int64 [num_more]``."""
        ends = self.offsets[-1] + torch.arange(1, len(columns) + 1, device=columns.device)
        return SparseRows(
            torch.cat([self.indices, columns.to(self.indices.dtype)]),
            torch.cat([self.offsets, ends.to(self.offsets.dtype)]),
            torch.cat([self.values, self.values.new_ones(len(columns))]),
            self.num_columns,
        )

    def transposed(self) -> "SparseRows":
        """The transpose; the entries of a row in the order that they had."""
        rows = torch.arange(self.num_rows, device=self.offsets.device, dtype=self.indices.dtype)
        order = torch.argsort(self.indices, stable=True)
        counts = torch.bincount(self.indices, minlength=self.num_columns)
        return SparseRows(
            torch.repeat_interleave(rows, torch.diff(self.offsets))[order],
            functional.pad(counts.cumsum(0), (1, 0)).to(self.offsets.dtype),
            self.values[order],
            self.num_rows,
        )


class SparseMatrix(LinearMap):
    """A sparse matrix on one rank, and its transpose.

    Args:
        matrix: ``[num_rows, num_columns]``.
        device: Where the products run.
    """

    def __init__(self, matrix: Csr, device: torch.device) -> None:
        rows = matrix.as_scipy()
        self.rows = SparseRows.of(rows, device)
        self.transpose = SparseRows.of(rows.T.tocsr(), device)

    def times(self, dense: Tensor) -> Tensor:
        """See :meth:`LinearMap.times`."""
        return self.rows.times(dense)

    def transposed_times(self, dense: Tensor) -> Tensor:
        """See :meth:`LinearMap.transposed_times`."""
        return self.transpose.times(dense)
