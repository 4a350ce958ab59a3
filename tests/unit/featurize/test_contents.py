import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egra_dist.catalog.events import EventSettings, ingest_events
from egra_dist.catalog.items import ItemOptions
from egra_dist.errors import UserError
from egra_dist.featurize.contents import columns_of, read_contents

ITEMS = {
    "id": ["a", "b", "c", "d"],
    "title": ["Red shoe", " ", None, "Blue hat"],
    "brand": ["Ox", "Elk", None, None],
    "year": [1990, 2000, None, 2020],
}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table(ITEMS), path)
    return path


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("title", ["Red shoe", None, None, "Blue hat"]),
        ("{title}", ["Red shoe", None, None, "Blue hat"]),
        ("{title}. By {brand}", ["Red shoe. By Ox", ". By Elk", None, "Blue hat. By "]),
        ("{year}: {title}!", ["1990: Red shoe!", "2000: !", None, "2020: Blue hat!"]),
        ("{{{brand}}}", ["{Ox}", "{Elk}", None, None]),
    ],
)
def test_templates(table, template, expected):
    contents = read_contents(table, "text", template, "id")
    assert contents.values.to_pylist() == expected
    assert contents.ids.to_pylist() == ITEMS["id"]
    assert (contents.id_column, len(contents)) == ("id", 4)


def test_columns_are_named_once():
    assert columns_of("{a} {b} {a}") == ["a", "b"]
    assert columns_of("a b") == ["a b"]


@pytest.mark.parametrize("template", ["{}", "{title", "{title!r}", "{title:>3}", "{{title}}", "}"])
def test_templates_refused(template):
    with pytest.raises(UserError, match=re.escape(f"--text {template!r}: ")):
        columns_of(template)


@pytest.mark.parametrize(
    ("columns", "template", "message"),
    [
        (ITEMS, "name", "items.parquet: no column 'name'; its columns are ['id', "),
        ({"id": ["a", "a"], "t": ["x", "y"]}, "t", "row 2: id 'a' was already on row 1"),
        ({"id": ["a", ""], "t": ["x", "y"]}, "t", "row 2: id is '', must be an id"),
        ({"id": ["a"], "t": [[1.0]]}, "t", "column 't' is list<"),
        ({"id": pa.array([], pa.string()), "t": pa.array([], pa.string())}, "t", "holds no items"),
    ],
)
def test_tables_refused(tmp_path, columns, template, message):
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(UserError, match=re.escape(message)):
        read_contents(path, "text", template, "id")


def test_a_catalogue_is_read_in_its_order_and_with_its_name_of_ids(tmp_path, table):
    pairs = [(user, item) for user in range(3) for item in ITEMS["id"]]
    users, items = zip(*pairs, strict=True)
    pq.write_table(pa.table({"user": users, "item": items}), tmp_path / "events.parquet")
    catalog = ingest_events(
        tmp_path / "events.parquet", tmp_path / "catalog",
        EventSettings("user", "item", k_core=0), ItemOptions(table, "id"),
    )  # fmt: skip
    contents = read_contents(tmp_path / "catalog", "text", "title")
    assert contents.id_column == "id"
    assert contents.ids.equals(catalog.raw_ids("items"))
    assert dict(zip(contents.ids.to_pylist(), contents.values.to_pylist(), strict=True)) == {
        "a": "Red shoe", "b": None, "c": None, "d": "Blue hat",
    }  # fmt: skip
    message = "items have no column 'name'; they have ['raw_id', 'title', 'brand', 'year']"
    with pytest.raises(UserError, match=re.escape(message)):
        read_contents(tmp_path / "catalog", "text", "name")


def test_integer_ids_stay_integers(tmp_path):
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": np.arange(3, dtype=np.int32), "t": list("xyz")}), path)
    assert read_contents(path, "text", "t").ids.type == pa.int64()
