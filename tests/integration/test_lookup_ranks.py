"""Rows of sharded tables looked up by several ranks: the rows, and the sums of their gradients."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ranks import run_on_ranks

from egra_dist.model.tables import EmbeddingTables

SIZES, DIM = {"user": 7, "item": 12}, 4
WANTED = {
    0: {"user": [0, 3, 6], "item": [1, 2, 5, 11]},
    1: {"user": [], "item": [2, 5, 6]},
    2: {"user": [3, 4], "item": [0, 2]},
}


def look_up(dtype):
    """What this rank got, and the gradients of its own rows."""
    tables = EmbeddingTables(SIZES, dict.fromkeys(SIZES, DIM), torch.device("cpu"), dtype)
    tables.initialize(0)
    rank = dist.get_rank()
    ids = {name: torch.tensor(rows, dtype=torch.int64) for name, rows in WANTED[rank].items()}
    rows = tables.lookup(ids)
    (rows * (rank + 1)).sum().backward()
    local = {name: tables.local(name) for name in SIZES}
    return (
        rows.detach().numpy(),
        {name: table.detach().float().numpy() for name, table in local.items()},
        {name: table.grad.to_dense().float().numpy() for name, table in local.items()},
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_ranks", [1, 3])
def test_rows_come_from_their_owners_and_gradients_go_back(num_ranks, dtype):
    results = run_on_ranks(look_up, num_ranks, dtype)
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
