import errno
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egra_dist.artifact import partial_folder
from egra_dist.catalog import writer as writer_module
from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.writer import writing_catalog
from egra_dist.errors import UserError
from egra_dist.manifest import Manifest


def write_small(out, num_items=6, value=1.0):
    with writing_catalog(out, {"value": value}, {}) as writer:
        writer.add_entities("users", pa.table({"raw_id": ["a", "b", "c"]}))
        writer.add_entities("items", pa.table({"raw_id": np.arange(num_items)}))
        for split in ("train", "valid", "test"):
            writer.add_interactions(split, np.array([0, 1]), np.array([1, 0]))
        blocks = [np.full((num_items // 2, 2), value, np.float32)] * 2
        writer.add_features("text", blocks, np.ones(num_items, dtype=bool))
    return Catalog.open(out)


def write_big_train(out, num_rows=1000, rows_per_append=100):
    users = np.repeat(np.arange(num_rows // 10, dtype=np.int32), 10)
    items = np.tile(np.arange(10, dtype=np.int32), num_rows // 10)
    with writing_catalog(out, {}, {}) as writer:
        writer.add_entities("users", pa.table({"raw_id": np.arange(num_rows // 10)}))
        writer.add_entities("items", pa.table({"raw_id": np.arange(10)}))
        for start in range(0, num_rows, rows_per_append):
            rows = slice(start, start + rows_per_append)
            writer.add_interactions("train", users[rows], items[rows])
    return Catalog.open(out), users, items


def test_parts_and_batches_do_not_change_what_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "PART_ROWS", 250)
    monkeypatch.setattr(writer_module, "ROW_GROUP_ROWS", 70)
    catalog, users, items = write_big_train(tmp_path / "catalog")
    parts = sorted((tmp_path / "catalog" / "interactions" / "train").iterdir())
    assert [pq.read_metadata(part).num_rows for part in parts] == [300, 300, 300, 100]
    np.testing.assert_array_equal(catalog.interactions("train"), (users, items))
    batches = list(catalog.iter_interactions("train", batch_rows=64))
    assert max(len(batch_users) for batch_users, _ in batches) <= 64
    np.testing.assert_array_equal(np.hstack([batch for _, batch in batches]), items)


def test_counts_and_columns_of_a_catalogue(tmp_path):
    catalog = write_small(tmp_path / "catalog")
    assert (catalog.num_users, catalog.num_items, catalog.num_interactions("valid")) == (3, 6, 2)
    assert catalog.raw_ids("users").to_pylist() == ["a", "b", "c"]
    assert catalog.item_column("title") is None
    features = catalog.features("text")
    assert isinstance(features.values, np.memmap)
    assert (features.values.shape, features.dim) == ((6, 2), 2)
    with pytest.raises(UserError, match=r"no modality 'sound'; it has \['text'\]"):
        catalog.features("sound")


def test_a_catalogue_is_replaced_and_a_failure_leaves_the_old_one(tmp_path):
    out = tmp_path / "catalog"
    old = write_small(out)
    with pytest.raises(ZeroDivisionError), writing_catalog(out, {}, {}) as writer:
        writer.add_entities("users", pa.table({"raw_id": [1]}))
        raise ZeroDivisionError
    assert Catalog.open(out).digest == old.digest
    assert list(tmp_path.iterdir()) == [out]
    new = write_small(out, value=2.0)
    assert new.digest != old.digest
    assert new.features("text").values[0, 0] == 2.0


def make_file(out):
    out.write_text("keep me")


def make_other_files(out):
    out.mkdir()
    (out / "thesis.tex").write_text("keep me")


def make_other_artifact(out):
    out.mkdir()
    Manifest(kind="knn", digest="0").write(out)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_file, "catalog is a file, not a folder"),
        (make_other_files, "catalog: holds other files and no catalogue"),
        (make_other_artifact, "manifest.json: kind is 'knn', expected 'catalog'"),
    ],
)
def test_what_is_not_a_catalogue_is_not_replaced(tmp_path, make, message):
    out = tmp_path / "catalog"
    make(out)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=re.escape(message)):
        write_small(out)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_a_file_where_a_parent_folder_should_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written: .*/file is a file, not a folder"):
        write_small(tmp_path / "file" / "catalog")


needs_full_device = pytest.mark.skipif(
    not Path("/dev/full").is_char_device(), reason="this system has no /dev/full"
)


@needs_full_device
def test_a_full_disk_under_tables_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    real_writer = pq.ParquetWriter
    monkeypatch.setattr(
        writer_module.pq,
        "ParquetWriter",
        lambda _, *args, **kw: real_writer("/dev/full", *args, **kw),
    )
    with pytest.raises(UserError, match=r"catalog: cannot be written: No space left on device$"):
        write_small(tmp_path / "catalog")
    assert not list(tmp_path.iterdir())


@needs_full_device
def test_a_full_disk_under_features_is_one_line_and_leaves_nothing(tmp_path):
    out = tmp_path / "catalog"
    with (
        pytest.raises(UserError, match=r"catalog: cannot be written: No space left on device$"),
        writing_catalog(out, {}, {}) as writer,
    ):
        features = partial_folder(out) / "features"
        features.mkdir()
        (features / "text.npy").symlink_to("/dev/full")
        writer.add_features("text", [np.ones((100_000, 2))], np.ones(100_000, dtype=bool))
    assert not list(tmp_path.iterdir())


def test_a_read_only_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(UserError, match=r"catalog: cannot be written: Read-only file system$"):
        write_small(tmp_path / "catalog")
    assert not list(tmp_path.iterdir())


def test_a_damaged_part_is_named(tmp_path):
    catalog = write_small(tmp_path / "catalog")
    part = tmp_path / "catalog" / "interactions" / "train" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"part-00000.parquet: not a readable Parquet file"):
        catalog.interactions("train")
    part.unlink()
    with pytest.raises(UserError, match=r"interactions/train: no parts"):
        catalog.interactions("train")


def test_a_folder_that_is_no_catalogue_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a catalog folder"):
        Catalog.open(tmp_path)
