"""Rows of tables that a batch needs: who is asked for which, how they are read, and updated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.graph.partition import RowPartition
from egra_dist.graph.sampler import distinct
from egra_dist.model.exchange import all_to_all, rank, swap, world_size


@dataclass(frozen=True)
class Asked:
    """Which rows travel between the ranks, table by table.

    Attributes:
        wanted: This rank's rows that others (and itself) want, those for rank 0 first.
        num_asked: How many rows come from each rank.
        num_given: How many go to each.
    """

    wanted: list[Tensor]
    num_asked: list[list[int]]
    num_given: list[list[int]]


def ask_owners(partitions: Sequence[RowPartition], ids: Sequence[Tensor]) -> Asked:
    """Asks the owners of rows for them; a collective call.

    Args:
        partitions: Who owns which row of each table.
        ids: Of each table the rows that this rank wants, distinct, ascending.
    """
    if dist.get_world_size() == 1:
        counts = [[len(part)] for part in ids]
        return Asked(list(ids), counts, counts)
    asked = torch.stack([_by_owner(*pair) for pair in zip(partitions, ids, strict=True)], dim=1)
    given = torch.empty_like(asked)
    dist.all_to_all_single(given, asked)
    num_asked, num_given = asked.T.tolist(), given.T.tolist()
    own = [partition.block(dist.get_rank()).start for partition in partitions]
    wanted = [
        all_to_all(part, taken, sent) - start
        for part, taken, sent, start in zip(ids, num_asked, num_given, own, strict=True)
    ]
    return Asked(wanted, num_asked, num_given)


def _by_owner(partition: RowPartition, ids: Tensor) -> Tensor:
    starts = torch.as_tensor(partition.starts, device=ids.device)
    return torch.diff(torch.searchsorted(ids, starts))


class ReadRows(torch.autograd.Function):
    """Rows of several tables, one below the other, from whoever owns them; sparse gradients.

    One function, so that rows are written once where they stay, and gradients are read there.
    """

    @staticmethod
    def forward(ctx: Any, asked: Asked, *tables: Tensor) -> Tensor:
        """What this rank has asked for of each table, ``[sum(num_rows), dim]``."""
        ctx.asked, ctx.shapes = asked, [table.shape for table in tables]
        sizes = [sum(counts) for counts in asked.num_asked]
        rows = tables[0].new_empty(sum(sizes), tables[0].shape[1], dtype=torch.float32)
        for number, (table, target) in enumerate(zip(tables, rows.split(sizes), strict=True)):
            _read(table, asked, number, target)
        return rows

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Sparse gradients of the own rows of each table."""
        asked = ctx.asked
        parts = gradients[0].split([sum(counts) for counts in asked.num_asked])
        found = [_add_up(asked, number, part) for number, part in enumerate(parts)]
        return None, *map(_sparse, found, ctx.shapes)


def _read(table: Tensor, asked: Asked, number: int, target: Tensor) -> None:
    """Fills ``target [num_rows, dim]`` with what this rank wants, and gives others theirs."""
    wanted = asked.wanted[number].split(asked.num_given[number])
    targets = target.split(asked.num_asked[number])
    if table.dtype == target.dtype:
        torch.index_select(table, 0, wanted[rank()], out=targets[rank()])
    else:
        targets[rank()].copy_(table.index_select(0, wanted[rank()]))
    if world_size() > 1:
        swap(
            table,
            asked.num_given[number],
            asked.num_asked[number],
            write=lambda other, sent: torch.index_select(table, 0, wanted[other], out=sent),
            read=lambda other, came: targets[other].copy_(came),
        )


def _add_up(asked: Asked, number: int, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Own rows that anybody wanted, ascending, and the sums of their gradients."""
    ids = asked.wanted[number]
    if world_size() == 1:
        return ids, gradient
    found, places = _distinct(ids)
    of_ranks = places.split(asked.num_given[number])
    outgoing = gradient.split(asked.num_asked[number])
    sums = _placed(outgoing[rank()], of_ranks[rank()], len(found))

    def add(other: int, rows: Tensor) -> None:
        sums.scatter_add_(0, of_ranks[other][:, None].expand_as(rows), rows)

    swap(
        gradient,
        asked.num_asked[number],
        asked.num_given[number],
        write=lambda other, sent: sent.copy_(outgoing[other]),
        read=add,
    )
    return found, sums


def _placed(rows: Tensor, places: Tensor, num_rows: int) -> Tensor:
    """Rows at distinct places among ``num_rows``, and zeros elsewhere, each written once."""
    placed = rows.new_empty(num_rows, rows.shape[1])
    is_empty = torch.ones(num_rows, dtype=torch.bool, device=rows.device)
    is_empty[places] = False
    placed.index_fill_(0, is_empty.nonzero()[:, 0], 0)
    return placed.index_copy_(0, places, rows)


def _sparse(found: tuple[Tensor, Tensor], shape: torch.Size) -> Tensor:
    ids, rows = found
    return torch.sparse_coo_tensor(
        ids[None], rows, shape, is_coalesced=True, check_invariants=False
    )


def _distinct(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct ids, ascending, and the place of each id among them, ``int64``."""
    if ids.device.type == "cpu":
        found, places = map(torch.from_numpy, distinct(ids.numpy()))
        return found, places.long()
    return torch.unique(ids, return_inverse=True)
