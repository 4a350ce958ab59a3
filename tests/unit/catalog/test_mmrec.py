import re

import numpy as np
import pytest

from egra_dist.catalog.catalog import SPLITS, Catalog
from egra_dist.catalog.mmrec import Order, ingest_mmrec
from egra_dist.catalog.timed import has_times, iter_timed
from egra_dist.errors import UserError
from tests.unit.catalog.conftest import ROWS


def raw_interactions(catalog: Catalog, split):
    """Pairs of raw ids."""
    users, items = catalog.interactions(split)
    raw_users = np.array(catalog.raw_ids("users"))[users]
    raw_items = np.array(catalog.raw_ids("items"))[items]
    return set(zip(raw_users.tolist(), raw_items.tolist(), strict=True))


def refused(mmrec_folder, tmp_path, message, order=None):
    """Asserts that ingestion names what is wrong in one line, and leaves nothing behind."""
    out = tmp_path / "out" / "catalog"
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        ingest_mmrec(mmrec_folder.path, out, order=order)
    assert "\n" not in str(caught.value)
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_interactions_and_features_follow_the_raw_ids(mmrec_folder, tmp_path):
    values = mmrec_folder.add_features(num_rows=5)  # item 4 has features alone
    catalog = ingest_mmrec(mmrec_folder.path, tmp_path / "catalog", seed=3)

    assert (catalog.num_users, catalog.num_items, catalog.modalities) == (3, 5, ("text",))
    assert raw_interactions(catalog, "train") == {(0, 0), (0, 1), (1, 1), (1, 3), (2, 2), (2, 0)}
    assert raw_interactions(catalog, "valid") == {(0, 2)}
    assert raw_interactions(catalog, "test") == {(0, 3), (1, 0)}
    raw_items = np.array(catalog.raw_ids("items"))
    assert sorted(raw_items) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(catalog.features("text").values, values[raw_items])


def test_order_of_columns_and_further_columns_do_not_matter(mmrec_folder, tmp_path):
    plain = ingest_mmrec(mmrec_folder.path, tmp_path / "plain")
    lines = [line.split("\t") for line in mmrec_folder.inter.read_text().splitlines()[1:]]
    rows = [(label, "4.5", item, user) for user, item, label in lines]
    mmrec_folder.write(rows, header="x_label\trating\titemID\tuserID")
    other = ingest_mmrec(mmrec_folder.path, tmp_path / "other")
    for split in SPLITS:
        assert raw_interactions(plain, split) == raw_interactions(other, split)


def times_of(catalog: Catalog):
    """Times by raw user and item, training interactions alone."""
    raw_users, raw_items = (catalog.raw_ids(name).to_pylist() for name in ("users", "items"))
    return {
        (raw_users[user], raw_items[item]): time
        for block in iter_timed(catalog, slice(0, catalog.num_users))
        for user, item, time in zip(*block, strict=True)
    }


def test_times_are_kept_where_somebody_says_what_they_are(mmrec_folder, tmp_path):
    without = ingest_mmrec(mmrec_folder.path, tmp_path / "without")
    assert not has_times(without)
    by_rows = ingest_mmrec(mmrec_folder.path, tmp_path / "rows", order=Order())
    trained = [row for row in enumerate(ROWS) if row[1][2] == 0]
    assert times_of(by_rows) == {(user, item): row for row, (user, item, _) in trained}

    rows = [(user, item, label, 1000 - 7 * row) for row, (user, item, label) in enumerate(ROWS)]
    mmrec_folder.write(rows, header="userID\titemID\tx_label\ttimestamp")
    by_column = ingest_mmrec(mmrec_folder.path, tmp_path / "times", order=Order("timestamp"))
    assert times_of(by_column) == {(u, i): time for u, i, label, time in rows if label == 0}
    assert len({each.digest for each in (without, by_rows, by_column)}) == 3


def test_times_that_cannot_be_read_are_refused(mmrec_folder, tmp_path):
    refused(mmrec_folder, tmp_path, "no column 'timestamp'; its columns are", Order("timestamp"))
    mmrec_folder.write([(0, 0, 0, 5), (0, 1, 0, 1.5)], "userID\titemID\tx_label\tat")
    refused(mmrec_folder, tmp_path, "line 3: at is '1.5', must be a non-negative", Order("at"))


def test_interactions_are_sorted(mmrec_folder, tmp_path):
    users, items = ingest_mmrec(mmrec_folder.path, tmp_path / "catalog").interactions("train")
    assert list(zip(users, items, strict=True)) == sorted(zip(users, items, strict=True))
    assert users.dtype == items.dtype == np.int32


def test_seed_shuffles_and_content_and_seed_make_the_digest(mmrec_folder, tmp_path):
    mmrec_folder.write([(user, user, 0) for user in range(50)])
    catalogs = [
        ingest_mmrec(mmrec_folder.path, tmp_path / name, seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    orders = [catalog.raw_ids("items").to_pylist() for catalog in catalogs]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])
    digests = [catalog.digest for catalog in catalogs]
    assert digests[0] == digests[1] != digests[2]

    mmrec_folder.write([(user, (user + 1) % 50, 0) for user in range(50)])
    assert ingest_mmrec(mmrec_folder.path, tmp_path / "a").digest != digests[0]


def test_rows_of_zeros_are_marked_as_missing(mmrec_folder, tmp_path):
    values = mmrec_folder.add_features("image", dtype=np.float16)
    values[2] = 0
    mmrec_folder.save_features(values, "image")
    catalog = ingest_mmrec(mmrec_folder.path, tmp_path / "catalog")
    features = catalog.features("image")
    raw_items = np.array(catalog.raw_ids("items"))
    np.testing.assert_array_equal(features.present, raw_items != 2)
    assert catalog.manifest.counts["modalities"] == {
        "image": {"dim": 3, "dtype": "float16", "num_missing": 1}
    }


def test_double_precision_becomes_single(mmrec_folder, tmp_path):
    mmrec_folder.add_features(dtype=np.float64)
    catalog = ingest_mmrec(mmrec_folder.path, tmp_path / "catalog")
    assert catalog.features("text").values.dtype == np.float32


def test_an_item_without_interactions_may_be_missing_where_it_has_features(mmrec_folder, tmp_path):
    mmrec_folder.write([(0, 0, 0), (0, 3, 0)])
    mmrec_folder.add_features(num_rows=4)
    assert ingest_mmrec(mmrec_folder.path, tmp_path / "catalog").num_items == 4


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(0, 0, 0), (-1, 1, 0)], "tiny.inter: line 3: userID is '-1', must be a non-negative"),
        ([(0, 0, 0), (0, "b7", 0)], "tiny.inter: line 3: itemID is 'b7', must be a non-negative"),
        ([(0, 0, 0), (0, 1.5, 0)], "tiny.inter: line 3: itemID is '1.5', must be a non-negative"),
        ([(0, 0, 0), ("", 1, 0)], "tiny.inter: line 3: userID is '', must be a non-negative"),
        ([(0, 0, 0), (0, 1, 3)], "tiny.inter: line 3: x_label is 3, must be 0 (train), 1 (valid)"),
        ([(0, 0, 0), (2, 1, 0)], "tiny.inter: line 3: userID is 2, but 1 does not occur"),
        ([(0, 0, 0), (0, 9, 0)], "tiny.inter: line 3: itemID is 9, but 1 does not occur"),
        ([(0, 0, 1), (0, 1, 2)], "tiny.inter: no row has x_label 0: the training split is empty"),
        ([], "tiny.inter: no row has x_label 0: the training split is empty"),
        ([(0, 0, 0), (1, 1, 2)], "tiny.inter: line 3: userID 1 is in test but has no row with"),
        ([(0, 0, 0), (0, 1, 0), (0, 0, 2)], "tiny.inter: line 4: userID 0 and itemID 0 were alre"),
    ],
)
def test_a_bad_row_is_named(mmrec_folder, tmp_path, rows, message):
    mmrec_folder.write(rows)
    refused(mmrec_folder, tmp_path, message)


def test_a_missing_column_is_named(mmrec_folder, tmp_path):
    mmrec_folder.write([(0, 0)], header="userID\titemID")
    refused(mmrec_folder, tmp_path, "tiny.inter: no column 'x_label'; its columns are ['userID', ")


def test_a_short_row_is_named(mmrec_folder, tmp_path):
    mmrec_folder.write([(0, 0, 0), (0, 1)])
    refused(mmrec_folder, tmp_path, "tiny.inter: not a readable tab-separated file: CSV parse err")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_not_finite_is_named(mmrec_folder, tmp_path, value):
    values = mmrec_folder.add_features()
    values[2, 1] = value
    mmrec_folder.save_features(values)
    refused(mmrec_folder, tmp_path, f"text_feat.npy: row 2, column 1 is {value}, must be finite")


def test_a_feature_too_large_for_single_precision_is_named(mmrec_folder, tmp_path):
    values = mmrec_folder.add_features(dtype=np.float64)
    values[1, 0] = 1e300
    mmrec_folder.save_features(values)
    refused(mmrec_folder, tmp_path, "text_feat.npy: row 1, column 0 is 1e+300, must be finite")


def test_fewer_feature_rows_than_items_are_refused(mmrec_folder, tmp_path):
    mmrec_folder.add_features(num_rows=3)
    refused(mmrec_folder, tmp_path, "text_feat.npy: 3 rows, must be at least 4: itemID 3 occurs in")


def test_feature_files_of_different_length_are_refused(mmrec_folder, tmp_path):
    mmrec_folder.add_features("text", num_rows=4)
    mmrec_folder.add_features("image", num_rows=5)
    refused(mmrec_folder, tmp_path, "feature files differ in rows: {'image': 5, 'text': 4}")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(4, np.float32), "shape is [4], must be [num_items, dim]"),
        (np.zeros((4, 0), np.float32), "shape is [4, 0], must be [num_items, dim]"),
        (np.ones((4, 2), np.int64), "dtype is int64, must be one of ['float16', 'float32', "),
    ],
)
def test_features_that_are_no_matrix_of_floats_are_refused(mmrec_folder, tmp_path, values, message):
    mmrec_folder.save_features(values)
    refused(mmrec_folder, tmp_path, f"text_feat.npy: {message}")


def test_a_truncated_feature_file_is_refused(mmrec_folder, tmp_path):
    mmrec_folder.add_features()
    path = mmrec_folder.path / "text_feat.npy"
    path.write_bytes(path.read_bytes()[:-5])
    refused(mmrec_folder, tmp_path, "text_feat.npy: not a readable .npy file: ")


def test_a_folder_without_one_inter_file_is_refused(mmrec_folder, tmp_path):
    mmrec_folder.inter.unlink()
    refused(mmrec_folder, tmp_path, "raw: holds 0 .inter files, must hold one")
    mmrec_folder.path.rename(tmp_path / "elsewhere")
    refused(mmrec_folder, tmp_path, "raw: no such folder; expected one with a <name>.inter file")


@pytest.mark.parametrize(
    ("name", "num_users", "num_items", "num_interactions", "num_missing"),
    [
        ("tiktok", 9298, 6710, (59541, 3046, 6125), {"audio": 0, "image": 0}),
        ("microlens50k", 50000, 19220, (259708, 50000, 50000), {"image": 2028, "text": 0}),
    ],
)
def test_real_data(
    data_folder, tmp_path, name, num_users, num_items, num_interactions, num_missing
):
    catalog = ingest_mmrec(data_folder / name, tmp_path / "catalog")
    assert (catalog.num_users, catalog.num_items) == (num_users, num_items)
    assert tuple(catalog.num_interactions(split) for split in SPLITS) == num_interactions
    modalities = catalog.manifest.counts["modalities"]
    assert {key: modalities[key]["num_missing"] for key in modalities} == num_missing
