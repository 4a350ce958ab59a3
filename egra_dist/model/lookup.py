"""Rows of tables that a batch needs: who is asked for which, how they are read, and updated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.graph.partition import RowPartition
from egra_dist.graph.sampler import distinct
from egra_dist.model.exchange import exchange


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
    asked = torch.stack([_by_owner(*pair) for pair in zip(partitions, ids, strict=True)], dim=1)
    given = torch.empty_like(asked)
    dist.all_to_all_single(given, asked)
    num_asked, num_given = asked.T.tolist(), given.T.tolist()
    own = [partition.block(dist.get_rank()).start for partition in partitions]
    wanted = [
        exchange(part, taken, sent) - start
        for part, taken, sent, start in zip(ids, num_asked, num_given, own, strict=True)
    ]
    return Asked(wanted, num_asked, num_given)


def _by_owner(partition: RowPartition, ids: Tensor) -> Tensor:
    starts = torch.as_tensor(partition.starts, device=ids.device)
    return torch.diff(torch.searchsorted(ids, starts))


class ReadRows(torch.autograd.Function):
    """Reads rows of several tables into one matrix; the gradient of each table is sparse.

    With one rank rows are distinct and ascending, so that there is nothing to be added up.
    """

    @staticmethod
    def forward(ctx: Any, ids: list[Tensor], *tables: Tensor) -> Tensor:
        """The rows ``ids`` of each table, one table below the other."""
        ctx.ids, ctx.shapes = ids, [table.shape for table in tables]
        sizes = [len(part) for part in ids]
        rows = tables[0].new_empty(sum(sizes), tables[0].shape[1])
        for part, table, target in zip(ids, tables, rows.split(sizes), strict=True):
            torch.index_select(table, 0, part, out=target)
        return rows

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Sparse gradients of the tables."""
        parts = gradients[0].split([len(part) for part in ctx.ids])
        return None, *map(_sparse, ctx.ids, parts, ctx.shapes)


def _sparse(ids: Tensor, rows: Tensor, shape: torch.Size) -> Tensor:
    """Rows at ``ids``, those of the same id added up, as a gradient."""
    if dist.get_world_size() > 1:
        ids, rows = add_up(ids, rows)
    return torch.sparse_coo_tensor(
        ids[None], rows, shape, is_coalesced=True, check_invariants=False
    )


def add_up(ids: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct ids, ascending, and the sums of their rows."""
    if ids.device.type == "cpu":
        found, places = map(torch.from_numpy, distinct(ids.numpy()))
    else:
        found, places = torch.unique(ids, return_inverse=True)
    sums = rows.new_zeros(len(found), rows.shape[1])
    return found, sums.scatter_add_(0, places.long()[:, None].expand_as(rows), rows)
