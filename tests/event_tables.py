"""Small tables of events, and what ingestion makes of them."""

import re

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from egra_dist.catalog.events import EventSettings, ingest_events
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
