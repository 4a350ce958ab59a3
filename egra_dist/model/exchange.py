"""Rows that travel between ranks, with gradients that travel back.

One primitive, an all-to-all of rows, carries the halo of a propagation layer, the rows of a batch,
and the candidates of the contrastive loss. With one rank nothing is sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.graph.partition import RowPartition
from egra_dist.model.mailbox import Access, Mailbox
from egra_dist.model.segment import opened, row_size


def world_size() -> int:
    """Number of ranks; 1 where no process group is initialised."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's rank; 0 where no process group is initialised."""
    return dist.get_rank() if dist.is_initialized() else 0


@dataclass
class Traffic:
    """What has come to this rank from others.

    Attributes:
        received: Bytes of rows since the process began.
    """

    received: int = 0

    def count(self, like: Tensor, num_received: Sequence[int]) -> None:
        """Adds rows that come from others, of the type and width of ``like``."""
        self.received += row_size(like) * (sum(num_received) - num_received[rank()])

    def add(self, like: Tensor, num_rows: int) -> None:
        """Adds rows of others that are read where they are."""
        self.received += row_size(like) * num_rows


traffic = Traffic()
"""That of this process."""


def exchange(rows: Tensor, num_sent: Sequence[int], num_received: Sequence[int]) -> Tensor:
    """Sends consecutive groups of rows to the ranks and returns what they sent here.

    Args:
        rows: ``[sum(num_sent), dim]``, those for rank 0 first.
        num_sent: Rows for each rank.
        num_received: Rows from each rank.

    Returns:
        ``[sum(num_received), dim]``, those from rank 0 first. Its gradient takes the way back.
    """
    if world_size() == 1:
        return rows
    return _AllToAll.apply(rows, list(num_sent), list(num_received))


class _AllToAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, num_sent: list[int], num_received: list[int]) -> Tensor:
        ctx.num_sent, ctx.num_received = num_sent, num_received
        return all_to_all(rows, num_sent, num_received)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return all_to_all(gradients[0], ctx.num_received, ctx.num_sent), None, None


def all_to_all(rows: Tensor, num_sent: Sequence[int], num_received: Sequence[int]) -> Tensor:
    """:func:`exchange` without gradients."""
    rows = rows.contiguous()
    target = rows.new_empty((sum(num_received), *rows.shape[1:]))
    if opened(Mailbox, rows.device) is None:
        traffic.count(rows, num_received)
        dist.all_to_all_single(target, rows, list(num_received), list(num_sent))
        return target
    outgoing, incoming = rows.split(list(num_sent)), target.split(list(num_received))
    incoming[rank()].copy_(outgoing[rank()])
    swap(
        rows,
        num_sent,
        num_received,
        write=lambda other, sent: sent.copy_(outgoing[other]),
        read=lambda other, came: incoming[other].copy_(came),
    )
    return target


def swap(
    like: Tensor, num_sent: Sequence[int], num_received: Sequence[int], write: Access, read: Access
) -> None:
    """Rows between this rank and each other, written and read where they are on their way.

    A collective call. What stays on this rank is not looked at: it needs no way.

    Args:
        like: Has the type and the width of the rows, ``[any, dim]``.
        num_sent: Rows for each rank.
        num_received: Rows from each rank.
        write: Fills the rows for a rank, ``[num_sent[rank], dim]``.
        read: Is given the rows from a rank, and must not keep them.
    """
    traffic.count(like, num_received)
    mailbox = opened(Mailbox, like.device)
    if mailbox and mailbox.swap(like, num_sent, num_received, write, read):
        return
    sent, received = (
        [0 if other == rank() else count for other, count in enumerate(counts)]
        for counts in (num_sent, num_received)
    )
    outgoing, incoming = (like.new_empty((sum(n), *like.shape[1:])) for n in (sent, received))
    for other, part in enumerate(outgoing.split(sent)):
        if len(part):
            write(other, part)
    dist.all_to_all_single(incoming, outgoing, received, sent)
    for other, part in enumerate(incoming.split(received)):
        if len(part):
            read(other, part)


def fetch_rows(
    parts: Sequence[Tensor],
    wanted: Sequence[Tensor],
    partition: RowPartition,
    held: Tensor | None = None,
) -> list[Tensor]:
    """Rows of matrices that are partitioned alike, wherever they live, in one exchange.

    Every rank knows what every rank wants (batches are drawn from the same seed), so that nothing
    has to be asked for.

    Args:
        parts: This rank's rows of each matrix, ``[num_own_rows, dim]``; widths may differ.
        wanted: For each rank the rows it wants, distinct, ascending, ``int64 [num_wanted]``.
        partition: Who owns which row.
        held: The own rows that ``parts`` have, ascending, ``int64 [num_held]``; all when None.

    Returns:
        Of each matrix ``[len(wanted[rank]), dim]`` in the order wanted, with gradients to the
        owners.
    """
    if world_size() == 1:
        if held is not None and len(held) == len(wanted[0]):
            return list(parts)
        return _select(parts, wanted[0], held)
    own = partition.block(rank())
    to_send = [ids[(ids >= own.start) & (ids < own.stop)] - own.start for ids in wanted]
    starts = torch.as_tensor(partition.starts, device=parts[0].device)
    owners = torch.bucketize(wanted[rank()], starts[1:], right=True)
    num_received = torch.bincount(owners, minlength=world_size()).tolist()
    sent = torch.cat(_select(parts, torch.cat(to_send), held), dim=1)
    received = exchange(sent, [len(ids) for ids in to_send], num_received)
    arrival = torch.argsort(torch.argsort(owners, stable=True))
    return list(received.index_select(0, arrival).split([part.shape[1] for part in parts], dim=1))


def _select(parts: Sequence[Tensor], rows: Tensor, held: Tensor | None) -> list[Tensor]:
    places = rows if held is None else torch.searchsorted(held, rows)
    return [part.index_select(0, places) for part in parts]


def gather_rows(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Everybody's rows, those of rank 0 first, with gradients to where they came from.

    Args:
        rows: ``[sizes[rank], dim]``.
        sizes: Rows of each rank.

    Returns:
        ``[sum(sizes), dim]``.
    """
    num_ranks = world_size()
    if num_ranks == 1:
        return rows
    copies = rows.repeat(num_ranks, *([1] * (rows.dim() - 1)))
    return exchange(copies, [len(rows)] * num_ranks, sizes)
