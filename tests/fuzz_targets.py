"""What is fuzzed: every reader of what users bring, with the strategy of its inputs."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch.distributed.checkpoint as dcp
import yaml
from hypothesis import strategies as st

from egra_dist.catalog.catalog import SPLITS, Catalog
from egra_dist.catalog.events import EventSettings, ingest_events
from egra_dist.catalog.mmrec import ingest_mmrec
from egra_dist.config import Config, load_config, parse_config
from egra_dist.config.errors import known_keys
from egra_dist.manifest import MANIFEST
from egra_dist.train.commit import Commit
from egra_dist.train.dcp_reader import SafeReader
from tests.fuzz_examples import kept, tensors
from tests.fuzzing import Target, changed, edited

CONFIGS = Path(__file__).parents[1] / "configs"

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-3, 20),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["..", "../../etc/passwd", "nan", "1e400", "\0", "0x", "2026-01-01"]),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
edits = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4)), min_size=1, max_size=6)


def _settings_file(content: bytes, folder: Path) -> None:
    (folder / "config.yaml").write_bytes(content)
    load_config(folder / "config.yaml")


def _settings_edited(content: tuple[str, list[tuple[float, bytes]]], folder: Path) -> None:
    name, changes = content
    _settings_file(edited((CONFIGS / name).read_bytes(), changes), folder)


def _setting(content: tuple[str, Any], folder: Path) -> None:
    key, value = content
    with suppress(yaml.YAMLError, UnicodeEncodeError):
        load_config(None, [f"{key}={yaml.safe_dump(value)}"])
    *sections, last = key.split(".")
    fields: Any = {last: value}
    for section in reversed(sections):
        fields = {section: fields}
    parse_config(fields)


def _manifest(content: tuple[list[int], Any], folder: Path) -> None:
    shutil.copytree(kept() / "catalog", folder / "catalog")
    path = folder / "catalog" / MANIFEST
    path.write_text(json.dumps(changed(json.loads(path.read_text()), *content)))
    _read_all(folder / "catalog")


def _catalog_bytes(content: tuple[int, list[tuple[float, bytes]]], folder: Path) -> None:
    shutil.copytree(kept() / "catalog", folder / "catalog")
    files = sorted(path for path in (folder / "catalog").rglob("*") if path.is_file())
    path = files[content[0] % len(files)]
    path.write_bytes(edited(path.read_bytes(), content[1]))
    _read_all(folder / "catalog")


def _read_all(path: Path) -> None:
    catalog = Catalog.open(path)
    if max(catalog.num_users, catalog.num_items) > 10**6:
        return  # a large catalogue is no mistake
    for split in SPLITS:
        if catalog.num_interactions(split) < 10**6:
            catalog.interactions(split)
    for modality in catalog.modalities:
        catalog.features(modality)
    catalog.raw_ids("users")
    catalog.raw_ids("items")


def _inter(content: tuple[str, list[list[str]]], folder: Path) -> None:
    header, rows = content
    (folder / "raw").mkdir()
    lines = [header, *("\t".join(row) for row in rows)]
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    (folder / "raw" / "a.inter").write_bytes(text)
    ingest_mmrec(folder / "raw", folder / "catalog")


def _features(content: list[tuple[float, bytes]], folder: Path) -> None:
    (folder / "raw").mkdir()
    rows = "".join(f"{user}\t{item}\t0\n" for user in range(2) for item in range(3))
    (folder / "raw" / "a.inter").write_text("userID\titemID\tx_label\n" + rows)
    np.save(folder / "raw" / "text_feat.npy", np.ones((3, 4), np.float32))
    path = folder / "raw" / "text_feat.npy"
    path.write_bytes(edited(path.read_bytes(), content))
    ingest_mmrec(folder / "raw", folder / "catalog")


def _events(content: tuple[list[list[Any]], list[Any], str], folder: Path) -> None:
    columns, types, split = content
    names = ("user", "item", "time")
    try:
        arrays = [pa.array(c, t) for c, t in zip(columns, types, strict=True)]
        length = min(map(len, arrays))
        table = pa.table(dict(zip(names, (array[:length] for array in arrays), strict=True)))
        pq.write_table(table, folder / "events.parquet")
    except (pa.ArrowException, OverflowError, TypeError, ValueError, UnicodeError):
        return  # there is no such table
    _ingest(folder / "events.parquet", folder, split)


def _events_bytes(content: list[tuple[float, bytes]], folder: Path) -> None:
    columns = {name: [1, 2, 3] * 5 for name in ("user", "item", "time")}
    pq.write_table(pa.table(columns), folder / "events.parquet")
    path = folder / "events.parquet"
    path.write_bytes(edited(path.read_bytes(), content))
    _ingest(path, folder, "ratio")


def _events_csv(content: tuple[str, str], folder: Path) -> None:
    text = (content[0] + "\n" + content[1]).encode("utf-8", "surrogatepass")
    (folder / "events.csv").write_bytes(text)
    _ingest(folder / "events.csv", folder, "ratio")


def _ingest(path: Path, folder: Path, split: Any) -> None:
    ingest_events(
        path, folder / "out", EventSettings("user", "item", "time", k_core=1, split=split)
    )


def _checkpoint(content: tuple[int, list[tuple[float, bytes]]], folder: Path) -> None:
    shutil.copytree(kept() / "checkpoints", folder / "checkpoints")
    files = sorted(path for path in (folder / "checkpoints").rglob("*") if path.is_file())
    path = files[content[0] % len(files)]
    path.write_bytes(edited(path.read_bytes(), content[1]))
    commit = Commit.read(folder / "checkpoints")
    assert commit is not None
    for entry in commit.kept:
        reader = SafeReader(folder / "checkpoints" / entry.name)
        with suppress(dcp.CheckpointException):
            dcp.load(tensors(), storage_reader=reader, no_dist=True)


def _commit(content: tuple[list[int], Any], folder: Path) -> None:
    fields = json.loads((kept() / "checkpoints" / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(changed(fields, *content)))
    Commit.read(folder)


_tokens = st.sampled_from(["0", "1", "2", "3", "-1", "", " ", "x", "1.0", "99999999999999999999"])
_words = st.one_of(_tokens, st.text(max_size=6))
_header = st.sampled_from(
    ["userID\titemID\tx_label", "userID\titemID", "", "x_label\titemID\tuserID"]
)
_types = st.sampled_from(
    [None, pa.int64(), pa.int8(), pa.uint64(), pa.string(), pa.large_string(), pa.float64(),
     pa.bool_(), pa.timestamp("s"), pa.timestamp("ns"), pa.date32(), pa.time32("s"), pa.binary(),
     pa.list_(pa.int64()), pa.dictionary(pa.int32(), pa.string()), pa.duration("ms"), pa.null()]
)  # fmt: skip
_cells = st.one_of(st.none(), st.integers(-5, 5), st.integers(), st.text(max_size=3), st.floats())
_column = st.one_of(
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
    st.lists(st.text("ab", max_size=2), min_size=1, max_size=12),
    st.lists(_cells, max_size=12),
)
_path = st.lists(st.integers(0, 20), max_size=5)
_csv = st.text(st.sampled_from('0123ab,"\n\r\t; é\0'), max_size=60)

TARGETS = {
    "settings: files": Target(st.binary(max_size=80), _settings_file),
    "settings: edited files": Target(
        st.tuples(st.sampled_from(["default.yaml", "tiktok.yaml"]), edits), _settings_edited
    ),
    "settings: values": Target(
        st.tuples(st.sampled_from(known_keys(Config)) | st.text(max_size=20), values), _setting
    ),
    "manifests": Target(st.tuples(_path, values), _manifest),
    "catalogue files": Target(st.tuples(st.integers(0, 50), edits), _catalog_bytes),
    ".inter": Target(
        st.tuples(_header, st.lists(st.lists(_words, min_size=2, max_size=4), max_size=8)), _inter
    ),
    ".npy": Target(edits, _features),
    "events: Parquet": Target(
        st.tuples(
            st.lists(_column, min_size=3, max_size=3),
            st.lists(_types, min_size=3, max_size=3),
            st.sampled_from(["ratio", "last", "time"]),
        ),
        _events,
    ),
    "events: edited Parquet": Target(edits, _events_bytes),
    "events: CSV": Target(st.tuples(st.just("user,item,time") | _csv, _csv), _events_csv),
    "checkpoints": Target(st.tuples(st.integers(0, 50), edits), _checkpoint),
    "state.json": Target(st.tuples(_path, values), _commit),
}
