"""Ranks of a machine wait for each other, and hear of what one has not done, or that it ended."""

import time

import pytest
import torch.distributed as dist
from ranks import run_on_ranks

from egra_dist.model.meeting import Meeting
from egra_dist.model.segment import open_together

NUM_RANKS, NUM_ROUNDS, LATE = 3, 50, 0.3


def meet():
    """What this rank hears, and how long it waits for the last one."""
    meeting, rank = open_together(Meeting), dist.get_rank()
    assert meeting is not None
    heard = [meeting.done_by_all(turn % (rank + 2) > 0) for turn in range(NUM_ROUNDS)]
    dist.barrier()
    started = time.perf_counter()
    if rank == 1:
        time.sleep(LATE)
    meeting.done_by_all(True)
    return heard, time.perf_counter() - started


def test_nobody_goes_on_before_the_last_and_all_hear_the_same():
    wanted = [all(turn % (rank + 2) > 0 for rank in range(NUM_RANKS)) for turn in range(NUM_ROUNDS)]
    for heard, seconds in run_on_ranks(meet, NUM_RANKS):
        assert heard == wanted
        assert seconds > 0.9 * LATE


def wait_for_one_that_ended():
    meeting = open_together(Meeting)
    assert meeting is not None
    if dist.get_rank() == 1:
        for other in meeting._others:
            other.close()
    else:
        with pytest.raises(ConnectionError, match="another worker of this machine has ended"):
            meeting.done_by_all(True)
            meeting.done_by_all(True)


def test_a_rank_that_ended_is_not_waited_for():
    run_on_ranks(wait_for_one_that_ended, 2)
