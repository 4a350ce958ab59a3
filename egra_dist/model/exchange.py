"""Rows that travel between ranks, with gradients that travel back.

One primitive, an all-to-all of rows, carries the halo of a propagation layer, the rows of a batch,
and the candidates of the contrastive loss. With one rank nothing is sent.
"""

from collections.abc import Callable, Iterator, Sequence
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
    like: Tensor,
    num_sent: Sequence[int],
    num_received: Sequence[int],
    write: Callable[[int, Tensor], object],
    read: Callable[[int, Tensor], object],
) -> None:
    """:func:`swap_kinds` for rows of one kind."""
    swap_kinds(
        [like],
        [num_sent],
        [num_received],
        write=lambda other, sent: write(other, sent[0]),
        read=lambda other, came: read(other, came[0]),
    )


def swap_kinds(
    likes: Sequence[Tensor],
    num_sent: Sequence[Sequence[int]],
    num_received: Sequence[Sequence[int]] | None,
    write: Access,
    read: Access,
) -> None:
    """Rows between this rank and each other, written and read where they are on their way.

    A collective call. What stays on this rank is not looked at: it needs no way.

    Args:
        likes: Have the type and the width of each kind of rows, ``[any, dim]``.
        num_sent: Rows of each kind for each rank.
        num_received: Rows of each kind from each rank; None if that is not known.
        write: Fills the rows for a rank, of each kind ``[num_sent[kind][rank], dim]``.
        read: Is given the rows from a rank, and must not keep them; not called where none came.
    """

    def read_counted(other: int, came: list[Tensor]) -> None:
        for rows in came:
            traffic.add(rows, len(rows))
        read(other, came)

    mailbox = opened(Mailbox, likes[0].device)
    if mailbox and mailbox.swap(likes, num_sent, write, read_counted):
        return
    sent = _of_others(num_sent)
    received = (
        _received(sent, likes[0].device) if num_received is None else _of_others(num_received)
    )
    outgoing = [
        like.new_empty((sum(n), *like.shape[1:])) for like, n in zip(likes, sent, strict=True)
    ]
    for other, parts in enumerate(_by_rank(outgoing, sent)):
        if any(map(len, parts)):
            write(other, parts)
    incoming = [
        like.new_empty((sum(n), *like.shape[1:])) for like, n in zip(likes, received, strict=True)
    ]
    for target, source, ins, outs in zip(incoming, outgoing, received, sent, strict=True):
        dist.all_to_all_single(target, source, ins, outs)
    for other, parts in enumerate(_by_rank(incoming, received)):
        if any(map(len, parts)):
            read_counted(other, parts)


def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copies each of some tensors."""
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def _of_others(counts: Sequence[Sequence[int]]) -> list[list[int]]:
    return [[0 if other == rank() else n for other, n in enumerate(kind)] for kind in counts]


def _received(sent: Sequence[Sequence[int]], device: torch.device) -> list[list[int]]:
    """How many rows of each kind come from each rank; a collective call."""
    told = torch.tensor(sent, device=device).T.contiguous()
    heard = torch.empty_like(told)
    dist.all_to_all_single(heard, told)
    return heard.T.tolist()


def _by_rank(kinds: Sequence[Tensor], counts: Sequence[Sequence[int]]) -> Iterator[list[Tensor]]:
    split = [rows.split(list(n)) for rows, n in zip(kinds, counts, strict=True)]
    return map(list, zip(*split, strict=True))


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
