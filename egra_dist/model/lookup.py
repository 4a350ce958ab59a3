"""Rows of tables that a batch needs: how they are found, and how their gradients come back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.graph.partition import RowPartition
from egra_dist.model.exchange import all_to_all, copy_all, rank, swap_kinds
from egra_dist.model.row_gradients import RowGradients, RowSums, TableRows


class RowExchange(ABC):
    """How the rows of one lookup travel.

    Args:
        tables: Own rows of each table.
        partitions: Who owns which row of each table.
        ids: Of each table the rows that this rank wants, distinct, ascending.
    """

    def __init__(
        self,
        tables: Sequence[TableRows],
        partitions: Sequence[RowPartition],
        ids: Sequence[Tensor],
    ) -> None:
        self.tables = list(tables)
        self.sizes = [len(part) for part in ids]
        pairs = list(zip(partitions, ids, strict=True))
        self._num_wanted = [_by_owner(*pair) for pair in pairs]
        # Of each table, for each owner, places among its rows.
        self._wanted = [
            [part - first for part, first in zip(ids.split(n), partition.starts, strict=False)]
            for (partition, ids), n in zip(pairs, self._num_wanted, strict=True)
        ]

    @abstractmethod
    def read(self, targets: Sequence[Tensor]) -> None:
        """Fills ``[sizes[n], dim]`` with the rows of each table; a collective call."""

    @abstractmethod
    def give_back(self, gradients: Sequence[Tensor]) -> None:
        """Leaves gradients with their rows, summed over the ranks; a collective call.

        Args:
            gradients: Of what was read of each table, ``[sizes[n], dim]``; they are used up.
        """

    def _by_rank(self, matrices: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """For each owner the rows of each table ``[sizes[n], dim]`` that are its own."""
        parts = [rows.split(n) for rows, n in zip(matrices, self._num_wanted, strict=True)]
        return list(zip(*parts, strict=True))

    def _own(self, values: Sequence[Tensor]) -> list[RowGradients]:
        """This rank's gradients of its own rows of each table, ``[num_own_wanted, dim]``."""
        wanted = [of_owners[rank()] for of_owners in self._wanted]
        return [RowGradients(*pair) for pair in zip(wanted, values, strict=True)]

    def _sums(self, values: Sequence[Tensor]) -> list[RowSums]:
        """Sums that have :meth:`_own`."""
        pairs = zip(self._own(values), self.tables, strict=True)
        return [RowSums(own, table.places) for own, table in pairs]

    def _leave(self, groups: Sequence[Sequence[RowGradients]]) -> None:
        for table, of_table in zip(self.tables, groups, strict=True):
            table.leave_gradients(of_table)


class NetworkRows(RowExchange):
    """Owners are asked for rows, and send them: the way between machines."""

    def read(self, targets: Sequence[Tensor]) -> None:
        """See :meth:`RowExchange.read`."""
        self._ask()
        incoming = self._by_rank(targets)
        self._write(rank(), incoming[rank()])
        swap_kinds(
            self.tables,
            self._num_given,
            self._num_wanted,
            write=self._write,
            read=lambda other, came: copy_all(incoming[other], came),
        )

    def _ask(self) -> None:
        """Tells the owners which rows are wanted; hears which own ones the others want."""
        asked = torch.tensor(self._num_wanted, device=self.tables[0].device).T.contiguous()
        given = torch.empty_like(asked)
        dist.all_to_all_single(given, asked)
        self._num_given = given.T.tolist()
        counts = zip(self._wanted, self._num_wanted, self._num_given, strict=True)
        self._given = [
            all_to_all(torch.cat(wanted), num_wanted, num_given).split(num_given)
            for wanted, num_wanted, num_given in counts
        ]

    def _write(self, other: int, sent: Sequence[Tensor]) -> None:
        for table, given, target in zip(self.tables, self._given, sent, strict=True):
            select(table, given[other], target)

    def give_back(self, gradients: Sequence[Tensor]) -> None:
        """See :meth:`RowExchange.give_back`."""
        outgoing = self._by_rank(gradients)
        sums = self._sums(outgoing[rank()])

        def add(other: int, came: Sequence[Tensor]) -> None:
            for of_table, given, values in zip(sums, self._given, came, strict=True):
                of_table.add(given[other], values)

        swap_kinds(
            gradients,
            self._num_wanted,
            self._num_given,
            write=lambda other, sent: copy_all(sent, outgoing[other]),
            read=add,
        )
        self._leave([of_table.groups() for of_table in sums])


class ReadRows(torch.autograd.Function):
    """Rows of several tables, one below the other, from whoever owns them.

    One function, so that rows are written once where they stay, and gradients are read there.
    """

    @staticmethod
    def forward(ctx: Any, exchange: RowExchange, *tables: TableRows) -> Tensor:
        """What this rank wants of each table, ``float32 [sum(num_rows), dim]``."""
        ctx.exchange = exchange
        rows = tables[0].new_empty(sum(exchange.sizes), tables[0].shape[1], dtype=torch.float32)
        exchange.read(rows.split(exchange.sizes))
        return rows

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        """Leaves gradients with the owners' rows, not with autograd, which would copy them."""
        ctx.exchange.give_back(gradients[0].contiguous().split(ctx.exchange.sizes))
        return None, *[None for _ in ctx.exchange.tables]


def select(table: Tensor, rows: Tensor, target: Tensor) -> None:
    """Copies some rows of a table."""
    if table.dtype == target.dtype:
        torch.index_select(table, 0, rows, out=target)
    else:
        target.copy_(table.index_select(0, rows))


def _by_owner(partition: RowPartition, ids: Tensor) -> list[int]:
    """How many of ascending ids each rank owns."""
    starts = torch.as_tensor(partition.starts, device=ids.device)
    return torch.diff(torch.searchsorted(ids, starts)).tolist()
