"""Tables that lie as a product takes them: all ranks see them where they are updated."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ranks import run_on_ranks

from egra_dist.graph.partition import NodePartition, RowPartition
from egra_dist.model import blackboard
from egra_dist.model.blackboard import Blackboard
from egra_dist.model.segment import opened
from egra_dist.model.stacked import stacked
from egra_dist.model.tables import DirectTables

DIM, NUM_RANKS, NUM_STEPS = 4, 3, 3
SIZES = [(7, 12), (2, 1), (1, 9)]
"""Users and items; some ranks have none."""


def see(num_users, num_items, has_room):
    """Of each step what this rank sees, whether it is where the tables are, and own rows."""
    if not has_room and dist.get_rank() == 0:
        blackboard.has_room_for = lambda size: size == blackboard.LARGE_PAGE  # the board itself
    tables = DirectTables(
        {"user": num_users, "item": num_items},
        {"user": DIM, "item": DIM},
        torch.device("cpu"),
        place="stacked",
    )
    tables.initialize(0)
    users, items = (tables.local(table).detach() for table in ("user", "item"))
    sizes = [RowPartition.even(size, NUM_RANKS) for size in (num_users, num_items)]
    positions = NodePartition(*sizes).positions
    board = opened(Blackboard, torch.device("cpu"))
    steps = []
    for _ in range(NUM_STEPS):
        users.add_(1)
        items.mul_(2)
        own = stacked(users, items)
        seen = board.publish(own, positions)
        is_there = seen.untyped_storage().data_ptr() == own.untyped_storage().data_ptr()
        other = board.place(own, positions).copy_(own + 1)
        assert torch.equal(board.publish(other, positions), seen + 1)
        steps.append((seen.clone().numpy(), is_there, own.numpy().copy()))
        dist.barrier()
    return steps


@pytest.mark.parametrize(
    ("sizes", "has_room"), [*((sizes, True) for sizes in SIZES), (SIZES[0], False)]
)
def test_all_see_what_each_has_updated(sizes, has_room):
    results = run_on_ranks(see, NUM_RANKS, *sizes, has_room)
    for of_ranks in zip(*results, strict=True):
        whole = np.concatenate([own for _, _, own in of_ranks])
        assert len(np.unique(whole)) == DIM * sum(sizes)
        for seen, is_there, _ in of_ranks:
            np.testing.assert_array_equal(seen, whole)
            assert is_there == has_room
