"""Figures of 1, 2 and 3 ranks are the same to the last bit, and end where ranks have no rows."""

import json
import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from egra_dist.config import EvaluationSettings
from egra_dist.evaluate.protocol import evaluate_partitioned, evaluate_vectors
from egra_dist.evaluate.slices import standard_slices
from egra_dist.evaluate.split import HeldOut, Split
from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import RowPartition


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


def evaluate_on_rank(rank, num_ranks, shape, settings, folder):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=num_ranks
    )
    split, users, items = make_case(*shape)
    user_rows = RowPartition.even(len(users), num_ranks)
    item_rows = RowPartition.even(len(items), num_ranks)
    evaluation = evaluate_partitioned(
        split,
        users[user_rows.block(rank)],
        items[item_rows.block(rank)],
        user_rows,
        item_rows,
        settings,
    )
    result = [evaluation.num_users, evaluation.metrics, evaluation.slices]
    (folder / f"{rank}.json").write_text(json.dumps(result))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("num_ranks", "shape", "tile", "batch"),
    [(1, (200, 150), 64, 33), (2, (200, 150), 31, 50), (3, (200, 150), 1000, 7), (3, (9, 4), 2, 2)],
)
def test_figures_do_not_depend_on_ranks_tiles_or_batches(num_ranks, shape, tile, batch, tmp_path):
    split, users, items = make_case(*shape)
    expected = evaluate_vectors(split, users, items, EvaluationSettings())
    assert expected.num_users > 0
    assert expected.metrics["recall_at_50"] > 0
    settings = EvaluationSettings(item_tile_size=tile, user_batch_size=batch)
    mp.spawn(
        evaluate_on_rank, args=(num_ranks, shape, settings, tmp_path), nprocs=num_ranks, join=True
    )
    for rank in range(num_ranks):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found == [expected.num_users, expected.metrics, expected.slices]
