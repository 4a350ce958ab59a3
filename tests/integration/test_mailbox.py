"""Rows through shared memory: those that the network would have brought, and no file left."""

import resource
from pathlib import Path

import torch
import torch.distributed as dist
from ranks import run_on_ranks

from egra_dist.model.mailbox import Mailbox
from egra_dist.model.segment import open_together

NUM_RANKS = 3
SIZES = (0, 1, 7, 40_000, 3)
"""Rows for the next rank, from exchange to exchange: files grow, and some hold nothing."""


def exchange_both_ways():
    """What does not come through the mailbox as through gloo."""
    rank, mailbox = dist.get_rank(), open_together(Mailbox)
    assert mailbox is not None
    wrong = []
    for turn, size in enumerate(SIZES):
        for dtype, width in ((torch.float32, (16,)), (torch.int64, ()), (torch.bool, (2, 3))):
            sent = [size if to == (rank + 1) % NUM_RANKS else turn for to in range(NUM_RANKS)]
            received = [size if rank == (of + 1) % NUM_RANKS else turn for of in range(NUM_RANKS)]
            rows = torch.randn(sum(sent), *width).mul(100).to(dtype)
            wanted = rows.new_empty(sum(received), *width)
            kind = torch.uint8 if dtype == torch.bool else dtype
            dist.all_to_all_single(wanted.view(kind), rows.view(kind), received, sent)
            came = torch.empty_like(wanted)
            is_there = exchange(mailbox, rows, sent, received, came)
            if not is_there or not torch.equal(came, wanted):
                wrong.append((turn, dtype))
    wrong += [] if is_refused_by_all(mailbox) else ["not refused"]
    return wrong, [path.name for path in Path("/dev/shm").glob(f"*{mailbox.name}*")]


def is_refused_by_all(mailbox):
    """One rank has no memory left: all are told so."""
    if dist.get_rank() == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 21, -1))
    rows = torch.zeros(NUM_RANKS * 1_000_000)
    sizes = [1_000_000] * NUM_RANKS
    return not exchange(mailbox, rows, sizes, sizes, torch.empty_like(rows))


def exchange(mailbox, rows, num_sent, num_received, target):
    """Whether rows came into ``target``; the own part is copied."""
    outgoing, incoming, rank = rows.split(num_sent), target.split(num_received), dist.get_rank()
    incoming[rank].copy_(outgoing[rank])
    return mailbox.swap(
        [rows],
        [num_sent],
        write=lambda other, sent: sent[0].copy_(outgoing[other]),
        read=lambda other, came: incoming[other].copy_(came[0]),
    )


def test_rows_come_as_through_the_network_and_leave_nothing_behind():
    for wrong, left in run_on_ranks(exchange_both_ways, NUM_RANKS):
        assert wrong == []
        assert left == []
