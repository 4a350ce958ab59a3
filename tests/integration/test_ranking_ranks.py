"""Figures of 1, 2 and 3 ranks are the same to the last bit, and end where ranks have no rows."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ranks import run_on_ranks

from egra_dist.config import EvaluationSettings
from egra_dist.evaluate.protocol import evaluate_partitioned, evaluate_vectors
from egra_dist.evaluate.slices import standard_slices
from egra_dist.evaluate.split import HeldOut, Split
from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import RowPartition

CASES = [  # users, items, tile, batch
    (200, 150, 64, 33),
    (200, 150, 1000, 7),
    (200, 5000, 3000, 50),
    (9, 4, 2, 2),
]


def make_case(num_users, num_items):
    """A split and vectors, the same in every process; only the first half of users is evaluated."""
    random = np.random.default_rng(7)
    interactions = np.unique(random.integers(0, num_users * num_items, num_users * 8))
    users, items = interactions // num_items, interactions % num_items
    held = (random.random(len(users)) < 0.3) & (users < num_users // 2)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(users[~held], minlength=num_users))])
    training = Csr(indptr, items[~held].astype(np.int32), None, num_items)
    counts = np.bincount(training.indices, minlength=num_items)
    slices = standard_slices(counts, np.diff(indptr), {"image": random.random(num_items) < 0.7})
    held_out = HeldOut.from_interactions(users[held], items[held], num_items)
    vectors = torch.from_numpy(random.standard_normal((num_users + num_items, 16)).astype("f4"))
    return Split(held_out, training, None, slices), vectors[:num_users], vectors[num_users:]


def evaluate_on_rank():
    return [_evaluate_blocks(*case) for case in CASES]


def _evaluate_blocks(num_users, num_items, tile, batch):
    split, user_vectors, item_vectors = make_case(num_users, num_items)
    users, items = (RowPartition.even(n, dist.get_world_size()) for n in (num_users, num_items))
    rank = dist.get_rank()
    return evaluate_partitioned(
        split,
        user_vectors[users.block(rank)],
        item_vectors[items.block(rank)],
        users,
        items,
        EvaluationSettings(item_tile_size=tile, user_batch_size=batch),
    )


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_figures_do_not_depend_on_ranks_tiles_or_batches(num_ranks):
    found = run_on_ranks(evaluate_on_rank, num_ranks)
    for number, (num_users, num_items, _, _) in enumerate(CASES):
        expected = evaluate_vectors(*make_case(num_users, num_items), EvaluationSettings())
        assert expected.metrics["recall_at_50"] > 0
        assert all(figures[number] == expected for figures in found)
