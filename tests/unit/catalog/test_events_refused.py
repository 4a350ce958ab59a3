import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egra_dist.catalog.events import EventSettings
from egra_dist.catalog.items import ItemOptions
from tests.event_tables import BASE, TIMED, refused, write_events


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "x"), (None, "y")], "events.parquet: row 2: user is None, must be an id"),
        ([("a", "x"), ("a", "")], "events.parquet: row 2: item is '', must be an id"),
        ([(1.5, "x")], "events.parquet: column 'user' is double, must be strings or integers"),
    ],
)
def test_a_bad_id_is_named(tmp_path, rows, message):
    refused(write_events(tmp_path / "events.parquet", rows), tmp_path, message)


def test_an_id_that_no_int64_holds_is_named(tmp_path):
    table = {"user": pa.array([1, 2**63, 3], pa.uint64()), "item": pa.array([1, 2, 3])}
    pq.write_table(pa.table(table), tmp_path / "events.parquet")
    message = f"events.parquet: row 2: user is {2**63}, must be below 2^63, or a string"
    refused(tmp_path / "events.parquet", tmp_path, message)


def test_a_bad_row_of_a_later_part_is_named(tmp_path):
    folder = tmp_path / "events"
    folder.mkdir()
    write_events(folder / "a.parquet", BASE)
    write_events(folder / "b.parquet", [("c", "x", 1), ("d", None, 2)])
    refused(folder, tmp_path, "b.parquet: row 2: item is None, must be an id")


def test_a_bad_time_is_named(tmp_path):
    path = write_events(tmp_path / "events.parquet", [("a", "x", 1), ("a", "y", None)])
    refused(path, tmp_path, "events.parquet: row 2: at is null, must be a time", TIMED)
    path = write_events(tmp_path / "events.parquet", [("a", "x", "monday")])
    refused(path, tmp_path, "events.parquet: column 'at' is string, must be integers, time", TIMED)


def test_a_missing_column_is_named(tmp_path):
    for suffix in (".parquet", ".csv"):
        path = write_events(tmp_path / f"events{suffix}", [("a", "x")])
        message = f"events{suffix}: no column 'at'; its columns are ['user', 'item']"
        refused(path, tmp_path, message, TIMED)


def test_a_truncated_parquet_file_is_named(tmp_path):
    path = write_events(tmp_path / "events.parquet", BASE)
    path.write_bytes(path.read_bytes()[:-20])
    refused(path, tmp_path, "events.parquet: not a readable table: ")


def test_a_path_that_holds_no_table_is_refused(tmp_path):
    refused(tmp_path / "none.parquet", tmp_path, "none.parquet: no such file or folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path, "empty: holds no .parquet, .pq, .csv, .tsv file")
    (tmp_path / "events.json").write_text("{}")
    refused(tmp_path / "events.json", tmp_path, "events.json: suffix is '.json', must be one of")


def test_an_empty_core_is_refused(tmp_path):
    path = write_events(tmp_path / "events.parquet", BASE)
    settings = EventSettings("user", "item", k_core=5)
    refused(path, tmp_path, "events.parquet: --k-core 5 leaves none of its 5 interact", settings)


def test_an_event_table_without_rows_is_refused(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("user,item\n")
    refused(path, tmp_path, "events.csv: --k-core 0 leaves none of its 0 interactions")


def test_settings_that_do_not_go_together_are_refused(tmp_path):
    path = write_events(tmp_path / "events.parquet", BASE)
    settings = EventSettings("user", "item", split="time")
    refused(path, tmp_path, "--split time: needs the order of events, --time COL", settings)
    settings = EventSettings("user", "item", ratios=(0.5, 0.1, 0.1))
    refused(path, tmp_path, "--ratios 0.5,0.1,0.1: must be train, valid, test shares", settings)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0, 2.0], [1.0]], "items.parquet: row 2: vector has 1 values, the rows before 2"),
        ([[1.0, 2.0], [1.0, np.nan]], "column 'vector': row 1, column 1 is nan, must be finite"),
        ([None, None], "items.parquet: column 'vector' is null, must be lists of floats"),
        (["a", "b"], "items.parquet: column 'vector' is string, must be lists of floats"),
        ([["a"], ["b"]], "items.parquet: column 'vector' is list<element: string>, must be lists"),
        ([[], []], "items.parquet: column 'vector' "),
    ],
)
def test_a_bad_list_column_is_named(tmp_path, vectors, message):
    path = write_events(tmp_path / "events.parquet", BASE)
    pq.write_table(pa.table({"item_id": ["x", "y"], "vector": vectors}), tmp_path / "items.parquet")
    options = ItemOptions(tmp_path / "items.parquet", features={"text": "vector"})
    refused(path, tmp_path, message, item_options=options)


def test_bad_feature_sources_are_named(tmp_path):
    path = write_events(tmp_path / "events.parquet", BASE)
    np.save(tmp_path / "image.npy", np.ones((3, 2), np.float32))
    npy = str(tmp_path / "image.npy")
    ids = tmp_path / "ids.txt"

    def refuse(message, **options):
        refused(path, tmp_path, message, item_options=ItemOptions(**options))

    refuse("image.npy: which item is a row? give --feature-ids", features={"image": npy})
    refuse("a column needs the item table, --items FILE", features={"text": "vector"})
    with_ids = {"features": {"image": npy}, "feature_ids": {"image": ids}}
    refuse("ids.txt: cannot be read", **with_ids)
    ids.write_text("x\ny\n")
    refuse("image.npy: 3 rows, but ", **with_ids)
    ids.write_text("x\ny\nx\n")
    refuse("ids.txt: row 3: item_id 'x' was already on row 1", **with_ids)
    ids.write_text("p\nq\nr\n")
    refuse("--feature image: none of the catalogue's items has a row", **with_ids)
