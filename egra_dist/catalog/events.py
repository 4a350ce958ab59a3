"""Reads tables of events with raw ids: k-core, split, item table and features by id."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from egra_dist.catalog.catalog import SPLITS, Catalog
from egra_dist.catalog.features import RowBlocks
from egra_dist.catalog.files import Source, content_digest, read_source
from egra_dist.catalog.items import ItemData, ItemOptions, find_rows, read_items
from egra_dist.catalog.kcore import k_core
from egra_dist.catalog.preprocess import add_preprocessed
from egra_dist.catalog.split import TRAIN, split_by_ratio, split_by_time, split_last_out
from egra_dist.catalog.writer import CatalogWriter, writing_catalog
from egra_dist.config import FeatureSettings
from egra_dist.errors import UserError

logger = logging.getLogger(__name__)
SplitRule = Literal["ratio", "last", "time"]


@dataclass(frozen=True)
class EventSettings:
    """How events become a catalogue.

    Attributes:
        user: Column of user ids.
        item: Column of item ids.
        time: Column of times (integers, timestamps or dates); None when order is not known.
        k_core: Least number of interactions of every user and item that stays.
        split: ``ratio``: per user, the latest (without times: random ones) held out; ``last``:
            per user, the last tests and the last but one validates; ``time``: the same instants
            divide all users.
        ratios: Shares of train, valid and test, for ``ratio`` and ``time``.
        seed: Seed of the order of dense indices and of random splits.
    """

    user: str
    item: str
    time: str | None = None
    k_core: int = 5
    split: SplitRule = "ratio"
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0


@dataclass(frozen=True)
class _Entities:
    """Codes that stand for raw ids: ``codes[row]`` is a position in ``raw_ids``."""

    codes: NDArray[np.int64]
    raw_ids: pa.Array

    def take(self, rows: NDArray[np.int64]) -> "_Entities":
        return _Entities(self.codes[rows], self.raw_ids)

    def shuffled(self, rng: np.random.Generator) -> "_Entities":
        """Only those that occur, in random order."""
        occurring = rng.permutation(np.unique(self.codes))
        new_codes = np.empty(len(self.raw_ids), dtype=np.int64)
        new_codes[occurring] = np.arange(len(occurring))
        return _Entities(new_codes[self.codes], self.raw_ids.take(pa.array(occurring)))


@dataclass(frozen=True)
class _Events:
    """Interactions, each array ``[num_interactions]``."""

    users: _Entities
    items: _Entities
    times: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.users.codes)

    def take(self, rows: NDArray[np.int64]) -> "_Events":
        times = None if self.times is None else self.times[rows]
        return _Events(self.users.take(rows), self.items.take(rows), times)


def ingest_events(
    path: Path,
    out: Path,
    settings: EventSettings,
    item_options: ItemOptions | None = None,
    preprocessing: FeatureSettings | None = None,
) -> Catalog:
    """Turns a table of events into a catalogue.

    Args:
        path: A Parquet, CSV or TSV file, or a folder of them.
        out: The catalogue folder.
        settings: Columns, filter and split.
        item_options: Item table and features, if there are any.
        preprocessing: What happens to the features.

    Raises:
        UserError: If a file is not readable, lacks a column, or holds a value that is not
            allowed; if nothing is left to train on; or if ``out`` cannot be written.
    """
    _check(settings)
    items = read_items(item_options or ItemOptions())
    columns = [name for name in (settings.user, settings.item, settings.time) if name]
    source = read_source(path, columns, text=(settings.user, settings.item))
    inputs = {"events": content_digest(source.parts), **items.digests}
    preprocessing = preprocessing or FeatureSettings()
    recipe = {"reader": "events", **asdict(settings), **items.recipe}
    recipe |= preprocessing.model_dump(exclude_defaults=True)

    rng = np.random.default_rng(settings.seed)
    events = _keep_core(_collapse(_read_events(source, settings), source), source, settings)
    events, labels = _drop_untrained(*_split(events, settings, rng), source)
    events = _Events(events.users.shuffled(rng), events.items.shuffled(rng), events.times)
    with writing_catalog(out, recipe, inputs) as writer:
        writer.add_entities("users", pa.table({"raw_id": events.users.raw_ids}))
        _write_items(writer, events.items.raw_ids, items, preprocessing)
        _write_interactions(writer, events, labels)
    return Catalog.open(out)


def _check(settings: EventSettings) -> None:
    if settings.split != "ratio" and settings.time is None:
        raise UserError(f"--split {settings.split}: needs the order of events, --time COL")
    ratios = settings.ratios
    if not (min(ratios) >= 0 and ratios[0] > 0 and abs(sum(ratios) - 1) <= 1e-6):
        shares = ",".join(f"{ratio:g}" for ratio in ratios)
        raise UserError(f"--ratios {shares}: must be train, valid, test shares that sum to 1")


def _read_events(source: Source, settings: EventSettings) -> _Events:
    times = None
    if settings.time is not None:
        times = _read_times(source, settings.time)
    return _Events(_encode(source, settings.user), _encode(source, settings.item), times)


def _encode(source: Source, name: str) -> _Entities:
    encoded = source.ids(name).dictionary_encode().unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # of a table without rows
        return _Entities(np.empty(0, dtype=np.int64), pa.array([], pa.large_string()))
    return _Entities(encoded.indices.to_numpy().astype(np.int64), encoded.dictionary)


def _read_times(source: Source, name: str) -> NDArray[np.int64]:
    """Times as integers: as they are, or microseconds since 1970 of timestamps and dates."""
    column = source.table[name]
    if (row := pc.index(pc.is_null(column), True).as_py()) >= 0:
        raise source.error(row, f"{name} is null, must be a time")
    try:
        if pa.types.is_temporal(column.type):
            column = column.cast(pa.timestamp("us"))
        return column.cast(pa.int64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UserError(
            f"{source.path}: column {name!r} is {column.type}, "
            f"must be integers, timestamps or dates"
        ) from None


def _collapse(events: _Events, source: Source) -> _Events:
    """Keeps the earliest event of each user and item; the first one where times do not tell."""
    order = np.lexsort((events.items.codes, events.users.codes))
    if events.times is not None:
        order = np.lexsort((events.times, events.items.codes, events.users.codes))
    ordered = events.take(order)
    is_repeated = np.zeros(len(events), dtype=bool)
    is_repeated[1:] = (np.diff(ordered.users.codes) == 0) & (np.diff(ordered.items.codes) == 0)
    if is_repeated.any():
        row = int(order[is_repeated].min())
        user, item = (ids.raw_ids[ids.codes[row]].as_py() for ids in (events.users, events.items))
        logger.warning(
            "%s: user %r and item %r were already in an earlier event; of such repetitions %d "
            "are dropped",
            source.locate(row), user, item, int(is_repeated.sum()),
        )  # fmt: skip
    return events.take(np.sort(order[~is_repeated]))


def _keep_core(events: _Events, source: Source, settings: EventSettings) -> _Events:
    kept = k_core(events.users.codes, events.items.codes, settings.k_core)
    if not len(kept):
        raise UserError(
            f"{source.path}: --k-core {settings.k_core} leaves none of its {len(events)} "
            f"interactions, so that the training split is empty; give a smaller one"
        )
    return events.take(kept)


def _split(
    events: _Events, settings: EventSettings, rng: np.random.Generator
) -> tuple[_Events, NDArray[np.int8]]:
    """Orders events by user and time (without times: at random), and labels them."""
    within = rng.random(len(events)) if events.times is None else events.times
    events = events.take(np.lexsort((within, events.users.codes)))
    counts = np.bincount(events.users.codes)
    if settings.split == "time":
        assert events.times is not None, "checked with the settings"
        return events, split_by_time(events.times, settings.ratios)
    rules: dict[str, Callable[[], NDArray[np.int8]]] = {
        "ratio": lambda: split_by_ratio(counts, settings.ratios),
        "last": lambda: split_last_out(counts),
    }
    return events, rules[settings.split]()


def _drop_untrained(
    events: _Events, labels: NDArray[np.int8], source: Source
) -> tuple[_Events, NDArray[np.int8]]:
    """Drops held-out events of users who have none to train on (they joined after the cut)."""
    is_trained = np.zeros(len(events.users.raw_ids), dtype=bool)
    is_trained[events.users.codes[labels == TRAIN]] = True
    stays = is_trained[events.users.codes]
    if not stays.all():
        codes = events.users.codes[~stays]
        logger.warning(
            "%s: %d users have no training event and are dropped with their %d others, "
            "the first of them %r",
            source.path, len(np.unique(codes)), len(codes),
            events.users.raw_ids[codes[0]].as_py(),
        )  # fmt: skip
    return events.take(np.flatnonzero(stays)), labels[stays]


def _write_items(
    writer: CatalogWriter, raw_ids: pa.Array, items: ItemData, preprocessing: FeatureSettings
) -> None:
    wanted = pa.chunked_array([raw_ids])
    rows = find_rows(wanted, items.ids)
    known = pa.array(rows, mask=rows < 0)
    columns = {name: items.columns[name].take(known) for name in items.columns.column_names}
    writer.add_entities("items", pa.table({"raw_id": raw_ids, **columns}))
    for modality, features in items.features.items():
        rows = find_rows(wanted, features.ids)
        present = (rows >= 0) & features.present[rows]
        if not present.any():
            raise UserError(f"--feature {modality}: none of the catalogue's items has a row")
        blocks = RowBlocks(features.values, rows)
        add_preprocessed(writer, modality, blocks, present, preprocessing)


def _write_interactions(writer: CatalogWriter, events: _Events, labels: NDArray[np.int8]) -> None:
    for label, split in enumerate(SPLITS):
        part = events.take(np.flatnonzero(labels == label))
        part = part.take(np.lexsort((part.items.codes, part.users.codes)))
        users, items = part.users.codes.astype(np.int32), part.items.codes.astype(np.int32)
        writer.add_interactions(split, users, items, part.times)
