import logging
import re
from collections import Counter
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egra_dist.catalog.catalog import SPLITS
from egra_dist.catalog.events import EventSettings, ingest_events
from egra_dist.catalog.items import ItemOptions
from egra_dist.errors import UserError

COLUMNS = EventSettings(user="user", item="item", k_core=0)
TIMED = EventSettings(user="user", item="item", time="at", k_core=0)


def write_events(path, rows, time_type=None):
    """Writes ``(user, item)`` or ``(user, item, time)`` rows as Parquet or CSV."""
    names = ["user", "item", "at"][: len(rows[0])]
    columns = [pa.array(list(column)) for column in zip(*rows, strict=True)]
    if time_type is not None:
        columns[2] = columns[2].cast(time_type)
    table = pa.table(dict(zip(names, columns, strict=True)))
    write = csv.write_csv if path.suffix == ".csv" else pq.write_table
    write(table, path)
    return path


def raw_interactions(catalog, split):
    """Pairs of raw ids, in the order of the split."""
    users, items = catalog.interactions(split)
    raw_users, raw_items = catalog.raw_ids("users"), catalog.raw_ids("items")
    return [
        (raw_users[int(user)].as_py(), raw_items[int(item)].as_py())
        for user, item in zip(users, items, strict=True)
    ]


def refused(path, tmp_path, message, event_settings=COLUMNS, item_options=None):
    """Asserts that ingestion names what is wrong in one line, and leaves nothing behind."""
    out = tmp_path / "out" / "catalog"
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        ingest_events(path, out, event_settings, item_options)
    assert "\n" not in str(caught.value)
    assert not out.parent.exists() or not list(out.parent.iterdir())


BASE = [("ann", "x", 1), ("ann", "y", 2), ("ann", "z", 3), ("bob", "x", 1), ("bob", "z", 9)]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_last_out_of_raw_string_ids(tmp_path, suffix):
    path = write_events(tmp_path / f"events{suffix}", BASE)
    settings = EventSettings("user", "item", "at", k_core=0, split="last")
    catalog = ingest_events(path, tmp_path / "catalog", settings)
    assert sorted(raw_interactions(catalog, "train")) == [("ann", "x"), ("bob", "x")]
    assert raw_interactions(catalog, "valid") == [("ann", "y")]
    assert sorted(raw_interactions(catalog, "test")) == [("ann", "z"), ("bob", "z")]


def test_a_folder_of_parts_is_one_table(tmp_path):
    folder = tmp_path / "events"
    folder.mkdir()
    write_events(folder / "b.parquet", BASE[:2])
    write_events(folder / "a.parquet", BASE[2:])
    catalog = ingest_events(folder, tmp_path / "catalog", COLUMNS)
    assert catalog.num_users == 2
    assert sum(catalog.num_interactions(split) for split in SPLITS) == 5


def test_ids_in_csv_stay_as_they_stand(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("user,item\n007,1\n7,1\n")
    catalog = ingest_events(path, tmp_path / "catalog", COLUMNS)
    assert sorted(catalog.raw_ids("users").to_pylist()) == ["007", "7"]


def test_integer_ids_stay_integers(tmp_path):
    path = write_events(tmp_path / "events.parquet", [(10**12, -5), (3, -5)])
    catalog = ingest_events(path, tmp_path / "catalog", COLUMNS)
    assert sorted(catalog.raw_ids("users").to_pylist()) == [3, 10**12]


def test_categorical_ids_are_read(tmp_path):
    table = pa.table(
        {"user": pa.array(["a", "b"]).dictionary_encode(), "item": pa.array(["x", "x"])}
    )
    pq.write_table(table, tmp_path / "events.parquet")
    catalog = ingest_events(tmp_path / "events.parquet", tmp_path / "catalog", COLUMNS)
    assert sorted(catalog.raw_ids("users").to_pylist()) == ["a", "b"]


def test_of_repeated_events_the_earliest_counts(tmp_path, caplog):
    rows = [("ann", "x", 5), ("ann", "y", 2), ("ann", "z", 3), ("ann", "x", 1), ("ann", "x", 7)]
    path = write_events(tmp_path / "events.parquet", rows)
    settings = EventSettings("user", "item", "at", k_core=0, split="last")
    with caplog.at_level(logging.WARNING):
        catalog = ingest_events(path, tmp_path / "catalog", settings)
    assert raw_interactions(catalog, "train") == [("ann", "x")]
    assert raw_interactions(catalog, "test") == [("ann", "z")]
    assert caplog.records[0].getMessage() == (
        f"{path}: row 1: user 'ann' and item 'x' were already in an earlier event; "
        f"of such repetitions 2 are dropped"
    )


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.timestamp("s"), [datetime(2020, 1, 1) + timedelta(days=day) for day in range(3)]),
        (pa.date32(), [datetime(2020, 1, 1) + timedelta(days=day) for day in range(3)]),
        (pa.int32(), [1, 2, 3]),
        (pa.float64(), [1.0, 2.0, 3.0]),
    ],
)
def test_times_may_be_integers_timestamps_or_dates(tmp_path, kind, values):
    rows = [("ann", item, value) for item, value in zip("zyx", values, strict=True)]
    path = write_events(tmp_path / "events.parquet", rows, kind)
    settings = EventSettings("user", "item", "at", k_core=0, split="last")
    catalog = ingest_events(path, tmp_path / "catalog", settings)
    assert raw_interactions(catalog, "test") == [("ann", "x")]
    part = pq.read_table(catalog.path / "interactions" / "test" / "part-00000.parquet")
    assert part.schema.field("time").type == pa.int64()


def test_time_split_drops_users_without_a_past(tmp_path, caplog):
    rows = [("ann", f"x{day}", day) for day in range(9)] + [("late", "x0", 9)]
    path = write_events(tmp_path / "events.parquet", rows)
    settings = EventSettings("user", "item", "at", k_core=0, split="time")
    with caplog.at_level(logging.WARNING):
        catalog = ingest_events(path, tmp_path / "catalog", settings)
    assert catalog.raw_ids("users").to_pylist() == ["ann"]
    assert [catalog.num_interactions(split) for split in SPLITS] == [8, 1, 0]
    assert "1 users have no training event and are dropped with their 1" in caplog.text


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 20)),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from(["ratio", "last", "time"]),
)
def test_splits_agree_with_plain_python(tmp_path_factory, rows, rule):
    folder = tmp_path_factory.mktemp("events")
    path = write_events(folder / "events.parquet", rows)
    catalog = ingest_events(
        path, folder / "catalog", EventSettings("user", "item", "at", k_core=0, split=rule)
    )
    earliest = {}
    for user, item, time in rows:
        earliest[user, item] = min(time, earliest.get((user, item), time))
    found = {split: raw_interactions(catalog, split) for split in SPLITS}
    everything = [pair for pairs in found.values() for pair in pairs]
    assert len(everything) == len(set(everything))
    if rule != "time":
        assert set(everything) == set(earliest)
    assert {user for user, _ in everything} == {user for user, _ in found["train"]}
    for pair in everything:
        for other in found["test"]:
            if rule == "time" or pair[0] == other[0]:
                assert pair in found["test"] or earliest[pair] <= earliest[other]
    if rule == "last":
        counts = Counter(user for user, _ in earliest)
        tests = Counter(user for user, _ in found["test"])
        assert all(tests[user] == (count >= 2) for user, count in counts.items())


def test_k_core_is_applied_and_counted_without_repetitions(tmp_path):
    rows = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("c", "x"), ("c", "x")]
    path = write_events(tmp_path / "events.parquet", rows)
    settings = EventSettings("user", "item", k_core=2)
    catalog = ingest_events(path, tmp_path / "catalog", settings)
    assert sorted(catalog.raw_ids("users").to_pylist()) == ["a", "b"]


def test_item_table_keeps_its_columns_and_lists_are_features(tmp_path):
    path = write_events(tmp_path / "events.parquet", BASE)
    vectors = pa.array([[1.0, 2.0], None, [0.0, 0.0], [5.0, 6.0]], pa.list_(pa.float32()))
    ids = ["y", "x", "z", "unknown"]
    table = pa.table({"id": ids, "title": ["Y", "X", "Z", "U"], "vector": vectors})
    pq.write_table(table, tmp_path / "items.parquet")
    options = ItemOptions(tmp_path / "items.parquet", "id", {"text": "vector"})
    catalog = ingest_events(path, tmp_path / "catalog", TIMED, options)

    raw_ids = catalog.raw_ids("items").to_pylist()
    assert sorted(raw_ids) == ["x", "y", "z"]
    assert catalog.item_column("title").to_pylist() == [raw_id.upper() for raw_id in raw_ids]
    assert catalog.item_column("vector") is None
    features = catalog.features("text")
    assert features.present.tolist() == [raw_id == "y" for raw_id in raw_ids]
    assert features.values[raw_ids.index("y")].tolist() == [1.0, 2.0]
    assert not features.values[~features.present].any()


@pytest.mark.parametrize("ids_suffix", [".txt", ".csv", None])
def test_npy_features_by_id(tmp_path, ids_suffix):
    path = write_events(tmp_path / "events.parquet", BASE)
    values = np.array([[3.0], [1.0]], np.float16)
    np.save(tmp_path / "image.npy", values)
    ids_path = tmp_path / f"ids{ids_suffix}"
    header = "item_id\n" if ids_suffix == ".csv" else ""
    ids_path.write_text(f"{header}z\nx\n")
    options = ItemOptions(
        None, features={"image": str(tmp_path / "image.npy")}, feature_ids={"": ids_path}
    )
    if ids_suffix is None:
        csv.write_csv(pa.table({"item_id": ["z", "x"]}), tmp_path / "items.csv")
        options = ItemOptions(tmp_path / "items.csv", features=options.features)
    catalog = ingest_events(path, tmp_path / "catalog", COLUMNS, options)
    features = catalog.features("image")
    expected = {"x": 1.0, "y": 0.0, "z": 3.0}
    raw_ids = catalog.raw_ids("items").to_pylist()
    assert features.values[:, 0].tolist() == [expected[raw_id] for raw_id in raw_ids]
    assert features.present.tolist() == [raw_id != "y" for raw_id in raw_ids]


def test_the_digest_follows_contents_not_places(tmp_path):
    def digest(place, value):
        folder = tmp_path / place
        folder.mkdir()
        path = write_events(folder / "events.parquet", BASE)
        np.save(folder / "image.npy", np.full((3, 2), value, np.float32))
        csv.write_csv(pa.table({"item_id": ["x", "y", "z"]}), folder / "items.csv")
        options = ItemOptions(folder / "items.csv", features={"image": str(folder / "image.npy")})
        return ingest_events(path, folder / "catalog", COLUMNS, options).digest

    assert digest("a", 1) == digest("b", 1) != digest("c", 2)


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


def test_real_events_end_where_the_published_split_does(data_folder, tmp_path):
    folder = data_folder / "microlens50k"
    settings = EventSettings("user_id", "item_id", "position", k_core=0, split="last")
    options = ItemOptions(folder / "items.parquet")
    catalog = ingest_events(folder / "events.parquet", tmp_path / "catalog", settings, options)
    assert (catalog.num_users, catalog.num_items) == (50_000, 19_220)
    assert [catalog.num_interactions(split) for split in SPLITS] == [259_708, 50_000, 50_000]
    assert catalog.item_column("title").null_count == 0
