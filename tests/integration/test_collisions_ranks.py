"""Tables with fewer rows than ids: who has a row, who loses it, what a checkpoint knows of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ranks import run_on_ranks
from test_fused_ranks import fused_task, trained_ahead
from test_sampled_ranks import train_until_stopped
from test_training_ranks import CPU, series, train_on_rank, with_folder

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.config import OptimizerSettings, TableSettings
from egra_dist.errors import UserError
from egra_dist.model.tables import FusedTables
from egra_dist.train.setup import assemble
from egra_dist.train.task import Survival

SIZES, DIM = {"user": 4, "item": 16}, 8
INTERVAL = 2
RATE = 0.1
STEPS = [[0, 1, 2, 9], [0, 1, 2, 9], [0, 1, 3], [0, 1, 3], [0, 1, 3, 4, 5], [4, 5, 12]]


def look_up(eviction, num_rows, steps):
    """By step the rows of the items that were looked up, those of all, and what is told of them."""
    managed = {"item_rows": num_rows, "eviction": eviction, "interval": INTERVAL}
    settings = TableSettings(lookup="torchrec", managed_collision=managed)
    optimizer = OptimizerSettings(tables="rowwise_adagrad", learning_rate=RATE)
    tables = FusedTables(SIZES, dict.fromkeys(SIZES, DIM), CPU, settings, optimizer)
    tables.initialize(0)
    found = []
    for items in steps:
        mine = items if dist.get_rank() == 0 else []
        ids = {"user": torch.tensor([1]), "item": torch.tensor(mine, dtype=torch.int64)}
        looked_up = tables.lookup(ids)
        before = items_of(tables)
        looked_up.sum().backward()
        found.append(
            {
                "looked up": looked_up.detach()[1:].numpy(),
                "before": before,
                "after": items_of(tables),
                "metrics": tables.metrics(),
            }
        )
    return found


def items_of(tables):
    """Every item's row, wherever it is; twice, as looking must not change it."""
    once, again = (torch.cat([rows for _, rows in tables.own_rows("item")]) for _ in range(2))
    assert torch.equal(once, again)
    return once.numpy()


def of_all(results, step, name):
    return np.concatenate([result[step][name] for result in results])


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_ids_that_are_seen_get_rows_and_keep_them(num_ranks):
    results = run_on_ranks(look_up, num_ranks, "lru", 12, STEPS)
    for step, items in enumerate(STEPS):
        before, after = (of_all(results, step, name) for name in ("before", "after"))
        np.testing.assert_array_equal(results[0][step]["looked up"], before[items])
        unseen = np.setdiff1d(np.arange(16), np.concatenate(STEPS[: step + 1]))
        shared = [len(np.unique(part[unseen], axis=0)) for part in (before, after)]
        assert shared == [num_ranks, num_ranks], "of a worker all who have no row have the same"
    first = [results[0][step]["metrics"] for step in range(len(STEPS))]
    assert all(result[step]["metrics"] == first[step] for result in results for step in range(6))
    collisions = [metrics["tables/item_collision_rate"] for metrics in first]
    assert collisions[:4] == [1, 0, pytest.approx(1 / 3), 0]
    assert [metrics["tables/item_occupancy"] for metrics in first[:4]] == [
        0,
        *(n / 12 for n in (4, 4, 5)),
    ]
    known = of_all(results, 3, "after")[[0, 1, 2, 3, 9]]
    assert len(np.unique(known, axis=0)) == 5
    moved = of_all(results, 3, "after")[[0, 1, 3]] - of_all(results, 3, "before")[[0, 1, 3]]
    assert (moved < 0).all(), "Adagrad goes down where the gradient is one"


@pytest.mark.parametrize("eviction", ["lru", "lfu", "distance_lfu"])
def test_rows_go_from_old_ids_to_new_ones_and_start_anew(eviction):
    old, new = list(range(7)), list(range(8, 15))
    (steps,) = run_on_ranks(look_up, 1, eviction, 8, [old, old, new, new])
    metrics = [step["metrics"] for step in steps]
    assert metrics[1]["tables/item_occupancy"] == 7 / 8
    assert metrics[3]["tables/item_eviction_rate"] == (0 if eviction == "lfu" else 7 / 8)
    if eviction == "lfu":
        assert metrics[3]["tables/item_collision_rate"] == 1
        return
    rows = steps[3]["before"][8:15]
    assert len(np.unique(rows, axis=0)) == 7
    assert np.abs(rows).max() <= (6 / (8 + DIM)) ** 0.5
    # The accumulators, too, are new: the step has the length of Adagrad's first.
    np.testing.assert_allclose(rows - steps[3]["after"][8:15], RATE, rtol=1e-5)


@pytest.fixture(scope="module")
def shelves(tmp_path_factory):
    settings = SynthSettings(num_items=151, num_users=203, num_interactions=2000, missing_share=0.1)
    return synthesize(settings, tmp_path_factory.mktemp("collisions") / "catalog")


def managed_task(shelves, folder):
    return fused_task(
        shelves,
        folder,
        "train.tables.lookup=torchrec",
        "train.tables.managed_collision.item_rows=60",
        "train.tables.managed_collision.user_rows=90",
        "train.tables.managed_collision.interval=2",
    )


def train_and_go_on(whole, interrupted, ahead):
    expected = train_on_rank(whole)
    stopped = train_until_stopped(interrupted)
    return expected, stopped, train_on_rank(interrupted), trained_ahead(ahead)


def assembled(task):
    parts = assemble(task, CPU)
    with pytest.raises(UserError) as raised:
        parts.checkpoints.resume()
    return str(raised.value)


def test_a_checkpoint_knows_who_has_which_row(shelves, tmp_path):
    task = replace(managed_task(shelves, tmp_path), survival=Survival(checkpoint_steps=4))
    names = ("whole", "interrupted", "ahead")
    whole, interrupted, ahead = (with_folder(task, tmp_path / name) for name in names)
    results = run_on_ranks(train_and_go_on, 2, whole, interrupted, ahead)
    for (_, wanted), _, (_, vectors), _ in results:
        np.testing.assert_array_equal(vectors, wanted)
    (points, _), stopped, (rest, _), sent_ahead = results[0]
    losses = series(points, "train/loss_total")
    assert 0 < len(series(stopped, "train/loss_total")) < len(losses)
    np.testing.assert_array_equal(series(rest, "train/loss_total"), losses[8:])
    np.testing.assert_array_equal(series(sent_ahead, "train/loss_total"), losses)
    rates = series(points, "tables/item_collision_rate")
    assert rates[0] == 1 > rates[2:].max()
    assert series(points, "tables/user_occupancy")[-1] > 0.9
    (message,) = run_on_ranks(assembled, 1, interrupted)
    assert "number of workers is '2' there, '1' here" in message
