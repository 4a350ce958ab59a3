import pytest
import torch

from egra_dist.config import OptimizerSettings, TableSettings
from egra_dist.model.tables import FusedTables, TableShard, keyed
from egra_dist.model.tables.base import fill_rows


@pytest.mark.parametrize(
    ("kernel", "optimizer", "shown"),
    [
        ("fused", "adam", "optimizer.tables = 'adam': .* allowed .*: rowwise_adagrad"),
        ("fused_uvm", "rowwise_adagrad", "tables.kernel = 'fused_uvm': needs a GPU; .*: fused"),
    ],
)
def test_kernels_that_a_cpu_does_not_have_are_refused(kernel, optimizer, shown):
    settings = TableSettings(lookup="torchrec", kernel=kernel)
    with pytest.raises(ValueError, match=shown):
        FusedTables(
            {"item": 8},
            {"item": 4},
            torch.device("cpu"),
            settings,
            OptimizerSettings(tables=optimizer),
        )


def test_all_ids_of_a_table_are_one_sample():
    ids = {"user": torch.tensor([1, 4, 7]), "item": torch.tensor([2])}
    features = keyed(ids)
    assert (features.keys(), features.stride()) == (["user", "item"], 1)
    assert features.lengths().tolist() == features.length_per_key() == [3, 1]
    for name, rows in ids.items():
        assert torch.equal(features[name].values(), rows)


@pytest.mark.parametrize("rows", [slice(0, 40), slice(65_530, 65_570), slice(70_000, 70_000)])
@pytest.mark.parametrize("columns", [slice(0, 4), slice(1, 3)])
def test_a_shard_is_filled_as_the_whole_table_is(rows, columns):
    whole = torch.empty(70_000, 4)
    fill_rows(TableShard(slice(0, 70_000), slice(0, 4), whole), 70_000, 4, seed=3)
    part = torch.empty(rows.stop - rows.start, columns.stop - columns.start)
    fill_rows(TableShard(rows, columns, part), 70_000, 4, seed=3)
    assert torch.equal(part, whole[rows, columns])
    bound = (6 / 70_004) ** 0.5
    assert whole.abs().max() <= bound
    assert abs(whole.mean()) < bound / 100
