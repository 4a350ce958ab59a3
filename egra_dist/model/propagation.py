"""Exact propagation: products with a sparse matrix whose rows are spread over the ranks."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import RowPartition
from egra_dist.model.exchange import rank, world_size
from egra_dist.model.halo import HaloMatrix
from egra_dist.model.selected import SelectedRows, Selection, own_columns, partition_of
from egra_dist.model.shared_matrix import SharedMatrix, board_for
from egra_dist.model.sparse import LinearMap, SparseMatrix, SparseRows


class PartitionedMatrix(LinearMap):
    """The rows of a sparse matrix that this rank owns; every method is a collective call.

    Where all ranks share the memory of one machine they read each other's rows there, else the
    halo travels.

    Args:
        rows: Own rows ``[num_own_rows, num_columns]``; columns are positions in ``columns``.
        columns: Who owns which row of the matrix that is multiplied.
        device: Where the products run.
    """

    def __init__(self, rows: Csr, columns: RowPartition, device: torch.device) -> None:
        self._rows, self._of_columns, self._device = rows, columns, device
        self._of_rows = partition_of(rows.num_rows, device)
        self._whole = self._multiplied()

    def _multiplied(self) -> SparseMatrix | SharedMatrix | HaloMatrix:
        if world_size() == 1:
            return SparseMatrix(self._rows, self._device)
        board = board_for(self._of_columns.num_rows, self._device)
        if board is None:
            return HaloMatrix(self._rows, self._of_columns, self._device)
        own = SparseMatrix(self._own_columns(), self._device)
        return SharedMatrix(self._rows, own, self._of_rows, self._of_columns, board)

    def _own_columns(self) -> Csr:
        return own_columns(self._rows, self._of_rows, self._of_columns, self._device)

    @cached_property
    def _columns(self) -> SparseRows:
        """What all rows have in this rank's columns, ``[num_rows, num_own_columns]``."""
        if isinstance(self._whole, SparseMatrix):
            return self._whole.rows
        if isinstance(self._whole, SharedMatrix):
            return self._whole.own_columns.rows
        return SparseRows.of(self._own_columns().as_scipy(), self._device)

    @property
    def num_halo_rows(self) -> int:
        """Rows of other ranks that each product needs."""
        return 0 if isinstance(self._whole, SparseMatrix) else self._whole.num_halo_rows

    def place(self, like: Tensor) -> Tensor:
        """Where own rows of a dense matrix are written that is multiplied next, without a copy.

        Args:
            like: Of its type and width, ``[any, dim]``.

        Returns:
            ``[num_own_columns, dim]``.
        """
        if isinstance(self._whole, SharedMatrix):
            return self._whole.place(like)
        return like.new_empty(self._of_columns.size(rank()), *like.shape[1:])

    def times(self, dense: Tensor) -> Tensor:
        """This rank's rows of the product, ``[num_own_rows, dim]``; no gradient.

        Args:
            dense: ``[num_own_columns, dim]``, this rank's rows of the dense matrix.
        """
        return self._whole.times(dense)

    def transposed_times(self, dense: Tensor) -> Tensor:
        """This rank's rows of the transpose's product, ``[num_own_columns, dim]``; no gradient.

        Args:
            dense: ``[num_own_rows, dim]``.
        """
        return self._whole.transposed_times(dense)

    def at(self, chosen: Selection, plain: Tensor | None = None) -> SelectedRows:
        """Chosen rows, and below them some rows of an identity; see :class:`SelectedRows`."""
        return SelectedRows(self._columns, chosen, plain)


def mean_of_layers(
    matrix: PartitionedMatrix,
    embeddings: Tensor,
    num_layers: int,
    wanted: Selection | None = None,
) -> Tensor:
    """``mean_{l=0..L} N(A)^l E`` (LightGCN, equation 8; METHOD, stage 1).

    Args:
        matrix: ``N(A)`` over the nodes.
        embeddings: ``[num_own_nodes, dim]``.
        num_layers: ``L``.
        wanted: The nodes that are wanted; all when None.

    Returns:
        This rank's part, ``[num_own_wanted, dim]``.
    """
    return _MeanOfLayers.apply(embeddings, matrix, num_layers, wanted)


class _MeanOfLayers(torch.autograd.Function):
    """The last layer, first on the way back, is computed for the wanted nodes alone."""

    @staticmethod
    def forward(
        ctx: Any,
        embeddings: Tensor,
        matrix: PartitionedMatrix,
        num_layers: int,
        wanted: Selection | None,
    ) -> Tensor:
        ctx.matrix, ctx.num_layers, ctx.shape = matrix, num_layers, embeddings.shape
        ctx.own, ctx.first = None if wanted is None else wanted.own, None
        layer = embeddings.detach()
        total = layer.clone() if ctx.own is None else layer.index_select(0, ctx.own)
        for _ in range(num_layers - 1):
            layer = matrix.times(layer)
            total += layer if ctx.own is None else layer.index_select(0, ctx.own)
        if num_layers > 0:
            last = matrix if wanted is None else matrix.at(wanted)
            ctx.first = last if wanted is None or wanted.is_small else None
            total += last.times(layer)
        return total.div_(num_layers + 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        share = gradients[0] / (ctx.num_layers + 1)
        if ctx.first is None:
            total, num_left = share.new_zeros(ctx.shape), ctx.num_layers
        else:
            total, num_left = ctx.first.transposed_times(share), ctx.num_layers - 1
        _add(total, ctx.own, share)
        for _ in range(num_left):
            total = _add(ctx.matrix.transposed_times(total), ctx.own, share)
        return total, None, None, None


def _add(total: Tensor, rows: Tensor | None, share: Tensor) -> Tensor:
    """Adds to some rows of a matrix, or to all of them."""
    return total.add_(share) if rows is None else total.index_add_(0, rows, share)
