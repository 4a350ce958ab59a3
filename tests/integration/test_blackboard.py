"""A matrix in sight of all ranks: everybody's rows, with and without memory for them."""

import resource
from pathlib import Path

import torch
import torch.distributed as dist
from ranks import run_on_ranks

from egra_dist.graph.partition import RowPartition
from egra_dist.model.blackboard import Blackboard
from egra_dist.model.segment import open_together

NUM_RANKS = 3
SIZES = (7, 2, 40_000, 3, 0, 90_000)
"""Rows of the matrices, one after the other: files grow, and some ranks have nothing."""


def publish_in_turn():
    """Which matrices were not seen as they are, and what is left of the files."""
    board, wrong = open_together(Blackboard), []
    assert board is not None
    for number, size in enumerate(SIZES):
        for dtype in (torch.float32, torch.bfloat16):
            if not is_seen(board, number, size, dtype):
                wrong.append((size, dtype))
    before = is_seen(board, 0, 50, torch.float32)
    if dist.get_rank() == 1:  # has no memory left: all are told so, and get their rows
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, -1))
    full = [is_seen(board, seed, 400_000, torch.float32) for seed in (1, 2)]
    wrong += [] if before and all(full) else ["without memory"]
    return wrong, [path.name for path in Path("/dev/shm").glob(f"*{board.name}*")]


def is_seen(board, seed, size, dtype):
    matrix = torch.randn(size, 16, generator=torch.Generator().manual_seed(seed)).to(dtype)
    rows = RowPartition.even(size, NUM_RANKS)
    return torch.equal(board.publish(matrix[rows.block(dist.get_rank())], rows), matrix)


def test_all_ranks_see_all_rows_and_no_file_is_left():
    for wrong, left in run_on_ranks(publish_in_turn, NUM_RANKS):
        assert wrong == []
        assert left == []
