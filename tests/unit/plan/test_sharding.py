import json

import pytest

from egra_dist.errors import UserError
from tests.plans import CONFIGS, call

COUNTS = ("--users", 1003, "--items", 500, "--interactions", 9000, "--workers", 4)
ADAGRAD = "train.optimizer.tables=rowwise_adagrad"
TORCHREC = ("train.tables.lookup=torchrec", "train.propagation.mode=sampled")


def test_torchrec_shards_as_the_rows_of_a_worker_are_counted():
    result = call(CONFIGS / "default.yaml", *COUNTS, "--sharding", "--json")
    made = json.loads(result.stdout)
    worker = made["trainings"]["train"]["worker"]
    for name in ("user", "item"):
        assert made["sharding"][name]["sharding"] == "row_wise"
        assert max(made["sharding"][name]["rows"]) == worker[f"{name}s"]
    assert sum(made["sharding"]["user"]["rows"]) == 1003


def sharding_on_gpus(*overrides, counts=COUNTS):
    options = [*TORCHREC, "cluster.gpus_per_worker=1", *overrides]
    flags = [flag for option in options for flag in ("--set", option)]
    return call(CONFIGS / "default.yaml", *counts, "--sharding", "--json", *flags)


@pytest.mark.parametrize("kernel", ["fused", "fused_uvm", "fused_uvm_caching"])
def test_the_planner_places_tables_on_gpus_that_are_not_here(kernel):
    result = sharding_on_gpus(
        "train.tables.sharding=[column_wise]", f"train.tables.kernel={kernel}"
    )
    planned = json.loads(result.stdout)["sharding"]
    for name, num_rows in (("user", 1003), ("item", 500)):
        assert (planned[name]["sharding"], planned[name]["kernel"]) == ("column_wise", kernel)
        assert planned[name]["rows"] == [num_rows, num_rows]
        assert planned[name]["columns"] == [32, 32]
    ranks = planned["user"]["ranks"] + planned["item"]["ranks"]
    assert sorted(ranks) == [0, 1, 2, 3], "every worker has a quarter"


def test_the_planner_chooses_among_the_ways_that_are_allowed():
    planned = json.loads(sharding_on_gpus("train.tables.sharding=[table_wise]").stdout)["sharding"]
    assert [len(planned[name]["ranks"]) for name in ("user", "item")] == [1, 1]
    assert planned["user"]["ranks"] != planned["item"]["ranks"]
    ways = ["row_wise", "table_wise", "column_wise"]
    result = sharding_on_gpus(f"train.tables.sharding={json.dumps(ways)}")
    assert {table["sharding"] for table in json.loads(result.stdout)["sharding"].values()} <= set(
        ways
    )


def test_tables_that_do_not_fit_on_gpus_fit_beside_a_cache():
    counts = ("--users", 10**7, "--items", 10**7, "--interactions", 10**8, "--workers", 1)
    small = ("train.tables.device_memory_gib=4", ADAGRAD)
    whole = sharding_on_gpus(*small, counts=counts)
    assert isinstance(whole.exception, UserError)
    assert "tables: TorchRec's planner finds no plan" in str(whole.exception)
    cached = sharding_on_gpus(*small, "train.tables.kernel=fused_uvm_caching", counts=counts)
    assert json.loads(cached.stdout)["sharding"]["user"]["kernel"] == "fused_uvm_caching"


def test_managed_tables_are_planned_with_the_rows_that_they_have():
    managed = "train.tables.managed_collision.item_rows=100"
    made = [json.loads(sharding_on_gpus(ADAGRAD, *more).stdout) for more in ((), (managed,))]
    whole, small = (plan["trainings"]["train"]["memory"] for plan in made)
    assert made[1]["sharding"]["item"]["rows"] == [25] * 4
    assert whole["tables"] - small["tables"] == (125 - 25) * 64 * 4
    assert whole["optimizer"] - small["optimizer"] == (125 - 25) * 4


def test_shards_are_shown_with_who_has_them():
    result = call(CONFIGS / "default.yaml", *COUNTS, "--sharding")
    assert "item table: row_wise, fused, rows x columns of worker 0: 125 x 64" in result.output
