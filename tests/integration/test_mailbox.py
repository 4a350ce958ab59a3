"""Rows through shared memory: those that the network would have brought, and no file left."""

from pathlib import Path

import torch
import torch.distributed as dist
from ranks import run_on_ranks

from egra_dist.model.mailbox import open_mailbox

NUM_RANKS = 3
SIZES = (0, 1, 7, 40_000, 3)
"""Rows for the next rank, from exchange to exchange: files grow, and some hold nothing."""


def exchange_both_ways():
    """What does not come through the mailbox as through gloo."""
    rank, mailbox = dist.get_rank(), open_mailbox()
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
            if not torch.equal(mailbox.exchange(rows, sent, received), wanted):
                wrong.append((turn, dtype))
    return wrong, [path.name for path in Path("/dev/shm").glob(f"{mailbox.name}*")]


def test_rows_come_as_through_the_network_and_leave_nothing_behind():
    for wrong, left in run_on_ranks(exchange_both_ways, NUM_RANKS):
        assert wrong == []
        assert left == []
