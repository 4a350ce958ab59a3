"""Rows of sharded tables looked up by several ranks: the rows, and the sums of their gradients."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ranks import dense_gradient, run_on_ranks

from egra_dist.config import OptimizerSettings, TableSettings
from egra_dist.errors import UserError
from egra_dist.model import shared_tables
from egra_dist.model.tables import DirectTables, FusedTables

SIZES, DIM = {"user": 7, "item": 12}, 4
RATE, FUSED_DIM = 0.5, 8
WANTED = {
    0: {"user": [0, 3, 6], "item": [1, 2, 5, 11]},
    1: {"user": [], "item": [2, 5, 6]},
    2: {"user": [3, 4], "item": [0, 2]},
}


def look_up(dtype, is_shared, is_found=None):
    """What this rank got, and the gradients of its own rows."""
    widths = dict.fromkeys(SIZES, DIM)
    place = "shared" if is_shared else "apart"
    tables = DirectTables(SIZES, widths, torch.device("cpu"), dtype, place)
    assert bool(tables._shards) == (is_shared if is_found is None else is_found)
    tables.initialize(0)
    rank = dist.get_rank()
    ids = {name: torch.tensor(rows, dtype=torch.int64) for name, rows in WANTED[rank].items()}
    rows = tables.lookup(ids)
    (rows * (rank + 1)).sum().backward()
    local = {name: tables.local(name) for name in SIZES}
    return (
        rows.detach().numpy(),
        {name: table.detach().float().numpy() for name, table in local.items()},
        {name: dense_gradient(table) for name, table in local.items()},
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("num_ranks", "is_shared"), [(1, True), (3, True), (3, False)])
def test_rows_come_from_their_owners_and_gradients_go_back(num_ranks, is_shared, dtype):
    results = run_on_ranks(look_up, num_ranks, dtype, is_shared)
    tables = {name: np.concatenate([local[name] for _, local, _ in results]) for name in SIZES}
    wanted_gradients = {name: np.zeros((size, DIM)) for name, size in SIZES.items()}
    for rank, (rows, _, _) in enumerate(results):
        wanted = [tables[name][WANTED[rank][name]] for name in SIZES]
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, np.concatenate(wanted))
        for name, gradient in wanted_gradients.items():
            gradient[WANTED[rank][name]] += rank + 1
    for name, wanted in wanted_gradients.items():
        found = np.concatenate([gradients[name] for _, _, gradients in results])
        np.testing.assert_allclose(found, wanted)


def without_room_on_one_rank():
    if dist.get_rank() == 1:
        shared_tables.has_room_for = lambda size: False
    return look_up(torch.float32, is_shared=True, is_found=False)


def test_where_one_rank_has_no_room_all_send_rows():
    results = run_on_ranks(without_room_on_one_rank, 3)
    for (rows, *_), (wanted, *_) in zip(
        results, run_on_ranks(look_up, 3, torch.float32, True), strict=True
    ):
        np.testing.assert_array_equal(rows, wanted)


def update_fused(way, width):
    """What this rank looks up and owns before and after a step, and its shards' accumulators."""
    settings = TableSettings(lookup="torchrec", sharding=[way], column_width=width)
    optimizer = OptimizerSettings(tables="rowwise_adagrad", learning_rate=RATE)
    widths = dict.fromkeys(SIZES, FUSED_DIM)
    tables = FusedTables(SIZES, widths, torch.device("cpu"), settings, optimizer)
    tables.initialize(0)
    rank = dist.get_rank()
    ids = {name: torch.tensor(rows, dtype=torch.int64) for name, rows in WANTED[rank].items()}
    before = {name: own(tables, name) for name in SIZES}
    rows = tables.lookup(ids)
    (rows * (rank + 1) * torch.arange(FUSED_DIM)).sum().backward()
    after = {name: own(tables, name) for name in SIZES}
    sums = {
        name: [
            (shard.rows, shard.columns, values.numpy())
            for shard, values in zip(
                tables.shards(name), tables.optimizer_state(name)["sum"], strict=True
            )
        ]
        for name in SIZES
    }
    return rows.detach().numpy(), before, after, sums


def own(tables, name):
    return torch.cat([rows for _, rows in tables.own_rows(name)]).numpy()


@pytest.mark.parametrize(("way", "width"), [("row_wise", 8), ("table_wise", 8), ("column_wise", 4)])
@pytest.mark.parametrize("num_ranks", [1, 3])
def test_torchrec_finds_rows_and_updates_them_however_they_are_sharded(num_ranks, way, width):
    results = run_on_ranks(update_fused, num_ranks, way, width)
    before, after = (
        {name: np.concatenate([result[which][name] for result in results]) for name in SIZES}
        for which in (1, 2)
    )
    gradients = {name: np.zeros((size, FUSED_DIM)) for name, size in SIZES.items()}
    for rank, (rows, *_) in enumerate(results):
        wanted = [before[name][WANTED[rank][name]] for name in SIZES]
        np.testing.assert_array_equal(rows, np.concatenate(wanted))
        for name, gradient in gradients.items():
            gradient[WANTED[rank][name]] += (rank + 1) * np.arange(FUSED_DIM)
    for name, gradient in gradients.items():
        blocks = gradient.reshape(len(gradient), -1, width)
        wanted = (blocks**2).mean(2)
        scale = np.repeat(RATE / (np.sqrt(wanted) + 1e-8), width, axis=1)
        np.testing.assert_allclose(after[name], before[name] - scale * gradient, atol=1e-5)
        for rows, columns, found in (shard for result in results for shard in result[3][name]):
            np.testing.assert_allclose(found, wanted[rows, columns.start // width], rtol=1e-6)


def told_that_they_do_not_fit():
    settings = TableSettings(lookup="torchrec", host_memory_gib=1e-6)
    optimizer = OptimizerSettings(tables="rowwise_adagrad")
    with pytest.raises(UserError) as raised:
        FusedTables({"item": 1000}, {"item": 64}, torch.device("cpu"), settings, optimizer)
    return str(raised.value)


def test_tables_that_do_not_fit_are_a_users_mistake():
    (message,) = run_on_ranks(told_that_they_do_not_fit, 1)
    assert message.startswith("tables: TorchRec's planner finds no plan: ")
    assert len(message.splitlines()) == 1
