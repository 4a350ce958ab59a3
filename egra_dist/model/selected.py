"""Products for a few rows that all ranks know of, such as those of a batch.

The dense matrix stays where it is: each rank multiplies its own part of it for the chosen rows of
all ranks, and the owners add up what comes. Rows of the result travel, not the many rows that they
are made from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.graph.csr import Csr, starts_of
from egra_dist.graph.partition import SMALL_SELECTION, NodePartition, RowPartition
from egra_dist.model.exchange import all_to_all, rank, world_size
from egra_dist.model.sparse import LinearMap, SparseRows


@dataclass(frozen=True)
class Selection:
    """Rows of all ranks; every rank has the same.

    Attributes:
        ids: Distinct rows, ascending, ``int64 [num_rows]``.
        partition: Who owns which row.
    """

    ids: Tensor
    partition: RowPartition

    @cached_property
    def sizes(self) -> list[int]:
        """How many rows each rank owns."""
        starts = torch.as_tensor(self.partition.starts, device=self.ids.device)
        return torch.diff(torch.searchsorted(self.ids, starts)).tolist()

    @property
    def is_small(self) -> bool:
        """Whether the transpose of these rows is made faster than that of all is multiplied."""
        return len(self.ids) < SMALL_SELECTION * self.partition.num_rows

    @cached_property
    def own(self) -> Tensor:
        """The rows that this rank owns, counted from its first, ``int64 [num_own]``."""
        return self.ids.split(self.sizes)[rank()] - self.partition.block(rank()).start


def by_kind(positions: Tensor, nodes: NodePartition) -> tuple[Selection, Selection]:
    """The users, and the items, at some positions ``int64 [num_nodes]``, ascending."""
    starts, users, items = (
        torch.as_tensor(part.starts, device=positions.device)
        for part in (nodes.positions, nodes.users, nodes.items)
    )
    owners = torch.bucketize(positions, starts[1:], right=True)
    is_user = positions - starts[owners] < users.diff()[owners]
    of_users, of_items = owners[is_user], owners[~is_user]
    return (
        Selection(positions[is_user] - items[of_users], nodes.users),
        Selection(positions[~is_user] - users[of_items + 1], nodes.items),
    )


class SelectedRows(LinearMap):
    """Chosen rows of a partitioned matrix, and below them some rows of an identity.

    Args:
        columns: What all rows have in this rank's columns, ``[num_rows, num_own_columns]``.
        chosen: The rows.
        plain: Own rows of the dense matrix that are wanted, too, distinct,
            ``int64 [num_plain]``: taken along, a gradient for all of them is not made twice.
    """

    def __init__(self, columns: SparseRows, chosen: Selection, plain: Tensor | None = None) -> None:
        self._sizes = chosen.sizes
        self._rows = columns.at(chosen.ids)
        self._num_own = self._sizes[rank()]
        self._plain = plain
        if world_size() == 1 and plain is not None:
            self._rows, self._plain = self._rows.above_units(plain), None

    def times(self, dense: Tensor) -> Tensor:
        """``[num_own_rows + num_plain, dim]`` for own rows of the dense matrix; no gradient."""
        return self.times_each([dense])

    def transposed_times(self, dense: Tensor) -> Tensor:
        """``[num_own_columns, dim]`` for ``[num_own_rows + num_plain, dim]``; no gradient."""
        return self.transposed_times_each(dense, [dense.shape[1]])[0]

    def beside(self, matrices: Sequence[Tensor]) -> Tensor:
        """Products with several dense matrices beside each other, with their gradients.

        Args:
            matrices: Each ``[num_own_columns, dim]``; they are not copied into one.

        Returns:
            ``[num_own_rows + num_plain, len(matrices) * dim]``.
        """
        return _Beside.apply(self, *matrices)

    def times_each(self, matrices: Sequence[Tensor]) -> Tensor:
        """See :meth:`beside`; no gradient."""
        parts = torch.cat([self._rows.times(dense) for dense in matrices], dim=1)
        if world_size() > 1:
            parts = all_to_all(parts, self._sizes, [self._num_own] * world_size())
            parts = parts.view(world_size(), self._num_own, parts.shape[1]).sum(0)
        if self._plain is None:
            return parts
        plain = [dense.detach().index_select(0, self._plain) for dense in matrices]
        return torch.cat([parts, torch.cat(plain, dim=1)])

    def transposed_times_each(self, dense: Tensor, widths: Sequence[int]) -> list[Tensor]:
        """The transpose's products with some columns after others, ``[num_own_columns, width]``."""
        transposed = self._rows.transposed()
        if world_size() == 1:
            return [transposed.times(part) for part in dense.split(list(widths), dim=1)]
        own, of_plain = dense.split([self._num_own, len(dense) - self._num_own])
        copies = own.repeat(world_size(), 1)
        of_all = all_to_all(copies, [len(own)] * world_size(), self._sizes)
        found = [transposed.times(part) for part in of_all.split(list(widths), dim=1)]
        if self._plain is not None:
            for target, part in zip(found, of_plain.split(list(widths), dim=1), strict=True):
                target.index_add_(0, self._plain, part)
        return found


class _Beside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: SelectedRows, *matrices: Tensor) -> Tensor:
        ctx.rows, ctx.widths = rows, [dense.shape[1] for dense in matrices]
        return rows.times_each(matrices)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.rows.transposed_times_each(gradients[0], ctx.widths)


def partition_of(num_own_rows: int, device: torch.device) -> RowPartition:
    """Who owns which row, from each rank's number of rows; a collective call."""
    sizes = torch.zeros(world_size(), dtype=torch.int64, device=device)
    sizes[rank()] = num_own_rows
    if world_size() > 1:
        dist.all_reduce(sizes)
    return RowPartition(starts_of(sizes.cpu().numpy()))


def own_columns(
    rows: Csr, of_rows: RowPartition, columns: RowPartition, device: torch.device
) -> Csr:
    """What the rows of all ranks have in this rank's columns; a collective call.

    Args:
        rows: Own rows, ``[num_own_rows, num_columns]``.
        of_rows: Who owns which row.
        columns: Who owns which column.
        device: Where what travels is.

    Returns:
        ``[num_rows, num_own_columns]``.
    """
    if world_size() == 1:
        return rows
    matrix = rows.as_scipy()
    parts = [matrix[:, columns.block(other)] for other in range(world_size())]
    num_sent = torch.tensor([part.nnz for part in parts], device=device)
    num_received = torch.empty_like(num_sent)
    dist.all_to_all_single(num_received, num_sent)
    num_entries = num_sent.tolist(), num_received.tolist()
    num_rows = [rows.num_rows] * world_size(), np.diff(of_rows.starts).tolist()

    def swapped(arrays: list[np.ndarray], counts: tuple[list[int], list[int]]) -> np.ndarray:
        sent = torch.from_numpy(np.concatenate(arrays)).to(device)
        return all_to_all(sent, *counts).cpu().numpy()

    return Csr(
        starts_of(swapped([np.diff(part.indptr).astype(np.int64) for part in parts], num_rows)),
        swapped([part.indices.astype(np.int32) for part in parts], num_entries),
        swapped([part.data for part in parts], num_entries),
        columns.size(rank()),
    )
