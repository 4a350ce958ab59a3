"""Lists of all users by Ray tasks: the same rows as by one process."""

import pyarrow.parquet as pq

from egra_dist.cluster.tasks import ray_map
from egra_dist.serve import batch
from tests.exported import export_at_random


def test_lists_do_not_depend_on_who_makes_them(local_ray, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "_USERS_PER_PART", 16)
    exported = export_at_random(tmp_path)
    tables = []
    for name, run in (("here", map), ("ray", ray_map)):
        (tmp_path / name).mkdir()
        assert batch.write_lists(exported.data, "digest", 40, 7, tmp_path / name, run) == 40
        assert len(list((tmp_path / name).iterdir())) == 3
        tables.append(pq.read_table(tmp_path / name))
    assert tables[0].num_rows == 40 and tables[0] == tables[1]
