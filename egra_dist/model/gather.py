"""Rows that every rank gets from every other, with gradients to where they came from."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.graph.partition import RowPartition
from egra_dist.model.blackboard import Blackboard
from egra_dist.model.exchange import copy_all, rank, swap_kinds, world_size
from egra_dist.model.segment import opened


def gather_rows(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Everybody's rows, those of rank 0 first.

    Args:
        rows: ``[sizes[rank], dim]``.
        sizes: Rows of each rank.

    Returns:
        ``[sum(sizes), dim]``.
    """
    return gather_kinds([rows], [sizes])[0]


def gather_kinds(parts: Sequence[Tensor], sizes: Sequence[Sequence[int]]) -> list[Tensor]:
    """:func:`gather_rows` for rows of several kinds: ranks wait for each other once.

    Args:
        parts: Of each kind ``[sizes[kind][rank], dim]``.
        sizes: Rows of each kind and rank.

    Returns:
        Of each kind ``[sum(sizes[kind]), dim]``.
    """
    if world_size() == 1:
        return list(parts)
    return list(_Gather.apply([list(kind) for kind in sizes], *parts))


def sum_over_ranks(values: Tensor) -> None:
    """Adds up what all ranks have, in place, the same on all; a collective call.

    Args:
        values: ``[num_values]``.
    """
    board = opened(Blackboard, values.device)
    if board is None:
        dist.all_reduce(values)
    else:
        of_ranks = board.publish(values[None], RowPartition.even(world_size(), world_size()))
        torch.sum(of_ranks, dim=0, out=values)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sizes: list[list[int]], *parts: Tensor) -> tuple[Tensor, ...]:
        ctx.sizes = sizes
        ctx.set_materialize_grads(False)
        gathered = [
            part.new_empty(sum(n), *part.shape[1:]) for part, n in zip(parts, sizes, strict=True)
        ]
        places = [rows.split(n) for rows, n in zip(gathered, sizes, strict=True)]

        def fill(other: int, rows: Sequence[Tensor]) -> None:
            for place, part in zip(places, rows, strict=True):
                place[other].copy_(part)

        fill(rank(), parts)
        num_sent = [[len(part)] * world_size() for part in parts]
        swap_kinds(parts, num_sent, sizes, lambda _, sent: copy_all(sent, parts), fill)
        return tuple(gathered)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        given = {kind: rows for kind, rows in enumerate(gradients) if rows is not None}
        sizes = [ctx.sizes[kind] for kind in given]
        outgoing = [rows.split(n) for rows, n in zip(given.values(), sizes, strict=True)]
        sums = [parts[rank()].clone() for parts in outgoing]

        def add(_: int, came: Sequence[Tensor]) -> None:
            for total, part in zip(sums, came, strict=True):
                total += part

        swap_kinds(
            sums,
            sizes,
            [[n[rank()]] * world_size() for n in sizes],
            lambda other, sent: copy_all(sent, [parts[other] for parts in outgoing]),
            add,
        )
        found = dict(zip(given, sums, strict=True))
        return None, *map(found.get, range(len(gradients)))
