import logging
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
from tests.event_tables import BASE, COLUMNS, TIMED, raw_interactions, write_events


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


def test_real_events_end_where_the_published_split_does(data_folder, tmp_path):
    folder = data_folder / "microlens50k"
    settings = EventSettings("user_id", "item_id", "position", k_core=0, split="last")
    options = ItemOptions(folder / "items.parquet")
    catalog = ingest_events(folder / "events.parquet", tmp_path / "catalog", settings, options)
    assert (catalog.num_users, catalog.num_items) == (50_000, 19_220)
    assert [catalog.num_interactions(split) for split in SPLITS] == [259_708, 50_000, 50_000]
    assert catalog.item_column("title").null_count == 0


def test_a_large_csv_file_may_have_line_breaks_within_quotes(tmp_path):
    """Arrow reads it in blocks of a megabyte, which end anywhere."""
    num_rows = 20_000
    path = tmp_path / "events.csv"
    review = "nice\nagain, would buy, really " + 40 * "x"
    rows = [f'u{row % 200},i{row % 300},"{review}"' for row in range(num_rows)]
    path.write_text("\n".join(["user,item,review", *rows]) + "\n")
    assert path.stat().st_size > 2**20
    catalog = ingest_events(path, tmp_path / "catalog", COLUMNS)
    assert (catalog.num_users, catalog.num_items) == (200, 300)


def test_ids_of_a_text_file_may_have_what_unicode_calls_the_end_of_a_line(tmp_path):
    odd = "x\u2028\x0cy"
    path = write_events(tmp_path / "events.parquet", [("a", odd), ("a", "z"), ("b", odd)])
    np.save(tmp_path / "image.npy", np.array([[3.0], [1.0]], np.float16))
    ids = tmp_path / "ids.txt"
    ids.write_text(f"\ufeff{odd}\nz\n", encoding="utf-8")
    options = ItemOptions(
        None, features={"image": str(tmp_path / "image.npy")}, feature_ids={"": ids}
    )
    catalog = ingest_events(path, tmp_path / "catalog", COLUMNS, options)
    values = dict(
        zip(catalog.raw_ids("items").to_pylist(), catalog.features("image").values, strict=True)
    )
    assert values == {odd: [3.0], "z": [1.0]}
