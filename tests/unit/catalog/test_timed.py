from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.timed import Timed, has_times, iter_timed
from egra_dist.catalog.writer import writing_catalog
from egra_dist.errors import UserError

USERS = np.repeat(np.arange(7), [1, 4, 2, 0, 5, 1, 3]).astype(np.int32)
ITEMS = np.array([3, 0, 1, 5, 9, 2, 4, 0, 1, 2, 3, 4, 8, 1, 5, 6], np.int32)
TIMES = np.arange(len(ITEMS))[::-1] * 10


def make_catalog(folder: Path, times=TIMES) -> Catalog:
    with writing_catalog(folder, {}, {}) as writer:
        writer.add_entities("users", pa.table({"raw_id": range(7)}))
        writer.add_entities("items", pa.table({"raw_id": range(10)}))
        for split, rows in (("train", slice(None)), ("valid", slice(0)), ("test", slice(0))):
            writer.add_interactions(split, USERS[rows], ITEMS[rows], times and times[rows])
    return Catalog.open(folder)


def joined(blocks) -> Timed:
    whole = Timed(*(np.empty(0, int) for _ in Timed._fields))
    for block in blocks:
        whole = whole.and_then(block)
    return whole


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    """Its training interactions are in three files, of groups of two rows."""
    catalog = make_catalog(tmp_path / "catalog", list(TIMES))
    (whole,) = catalog.interaction_parts("train")
    table = pq.read_table(whole)
    for number, rows in enumerate((slice(0, 3), slice(3, 8), slice(8, 16))):
        part = table.slice(rows.start, rows.stop - rows.start)
        pq.write_table(part, whole.with_name(f"part-{number:05d}.parquet"), row_group_size=2)
    return catalog


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 100])
@pytest.mark.parametrize("block", [(0, 7), (1, 3), (3, 4), (2, 6), (6, 7), (5, 5)])
def test_users_come_whole_and_in_their_order(catalog, block, batch_rows):
    blocks = list(iter_timed(catalog, slice(*block), batch_rows))
    wanted = (block[0] <= USERS) & (block[1] > USERS)
    assert len(blocks) == 0 or wanted.any()
    for column, all_rows in zip(joined(blocks), (USERS, ITEMS, TIMES), strict=True):
        np.testing.assert_array_equal(column, all_rows[wanted])
    owners = [user for each in blocks for user in set(each.users)]
    assert len(owners) == len(set(owners)), "a user who comes twice"
    if batch_rows == 1:
        assert len(blocks) == len(set(USERS[wanted]))


def test_groups_without_the_users_are_not_read(catalog, monkeypatch):
    read = []
    plain = pq.ParquetFile.iter_batches

    def noting(self, *arguments, row_groups, **options):
        read.extend(row_groups)
        return plain(self, *arguments, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noting)
    assert len(list(iter_timed(catalog, slice(6, 7)))) == 1
    assert read == [2, 3], "of the last file, those with rows of user 6"


def test_interactions_without_times(tmp_path):
    catalog = make_catalog(tmp_path / "catalog", None)
    assert not has_times(catalog)
    all_rows = joined(iter_timed(catalog, slice(0, 7)))
    np.testing.assert_array_equal(all_rows.items, ITEMS)
    assert not all_rows.times.any()


def test_a_time_that_is_missing_is_named(catalog):
    assert has_times(catalog)
    part = catalog.interaction_parts("train")[1]
    table = pq.read_table(part)
    times = pa.array([1, None, 3, 4, 5], pa.int64())
    pq.write_table(table.set_column(2, "time", times), part)
    with pytest.raises(UserError, match=r"part-00001\.parquet: a time is missing"):
        list(iter_timed(catalog, slice(0, 7)))
    pq.write_table(table.set_column(2, "time", pa.array(list("abcde"))), part)
    assert not has_times(catalog)
