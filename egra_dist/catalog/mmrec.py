"""Reads MMRec folders: ``<name>.inter`` with a ready split, and ``<modality>_feat.npy`` files.

The format is that of the common toolkit (Zhou, "MMRec: Simplifying Multimodal Recommendation",
2023): tab-separated ``userID itemID x_label``, label 0 train, 1 valid, 2 test; feature row ``i``
belongs to ``itemID`` ``i``.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
from numpy.typing import NDArray

from egra_dist.catalog.catalog import SPLITS, Catalog
from egra_dist.catalog.features import RowBlocks, find_present, open_npy
from egra_dist.catalog.files import content_digest
from egra_dist.catalog.preprocess import add_preprocessed
from egra_dist.catalog.writer import CatalogWriter, writing_catalog
from egra_dist.config import FeatureSettings
from egra_dist.errors import UserError

COLUMNS = ("userID", "itemID", "x_label")
_FEATURE_SUFFIX = "_feat.npy"
_FIRST_LINE = 2  # of the rows, in a file whose first line is the header


@dataclass(frozen=True)
class Order:
    """How the interactions of a user follow each other.

    Attributes:
        column: Column of times, non-negative integers; the rows stand in the order of time when
            not given.
    """

    column: str | None = None


@dataclass(frozen=True)
class _Inter:
    """The rows of an ``.inter`` file, each array ``int64 [num_rows]``."""

    path: Path
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    labels: NDArray[np.int64]
    times: NDArray[np.int64] | None = None

    def error(self, row: int, message: str) -> UserError:
        return UserError(f"{self.path}: line {row + _FIRST_LINE}: {message}")


def ingest_mmrec(
    folder: Path,
    out: Path,
    seed: int = 0,
    preprocessing: FeatureSettings | None = None,
    order: Order | None = None,
) -> Catalog:
    """Turns an MMRec folder into a catalogue.

    Args:
        folder: Holds one ``.inter`` file and any number of ``<modality>_feat.npy``.
        out: The catalogue folder.
        seed: Seed of the order of dense indices.
        preprocessing: What happens to the features.
        order: Where the times of interactions come from; they are not kept when not given.

    Returns:
        The catalogue.

    Raises:
        UserError: If a file is missing, unreadable, or holds a value that is not allowed.
    """
    inter_path = _find_inter(folder)
    feature_paths = {
        path.name.removesuffix(_FEATURE_SUFFIX): path
        for path in sorted(folder.glob(f"*{_FEATURE_SUFFIX}"))
    }
    inputs = {"inter": content_digest([inter_path])}
    inputs |= {f"features/{name}": content_digest([path]) for name, path in feature_paths.items()}

    inter = _read_inter(inter_path, order)
    features = {name: open_npy(path) for name, path in feature_paths.items()}
    num_users = _count_users(inter)
    num_items = _count_items(inter, feature_paths, features)
    _check_split(inter, num_items)
    present = {name: find_present(features[name], str(feature_paths[name])) for name in features}

    rng = np.random.default_rng(seed)
    user_ids, item_ids = rng.permutation(num_users), rng.permutation(num_items)
    preprocessing = preprocessing or FeatureSettings()
    recipe = {"reader": "mmrec", "seed": seed, **preprocessing.model_dump(exclude_defaults=True)}
    recipe |= {"order": asdict(order)} if order else {}
    with writing_catalog(out, recipe, inputs) as writer:
        writer.add_entities("users", pa.table({"raw_id": user_ids}))
        writer.add_entities("items", pa.table({"raw_id": item_ids}))
        _write_interactions(writer, inter, np.argsort(user_ids), np.argsort(item_ids))
        for name, values in features.items():
            blocks = RowBlocks(values, item_ids)
            add_preprocessed(writer, name, blocks, present[name][item_ids], preprocessing)
    return Catalog.open(out)


def _find_inter(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one with a <name>.inter file")
    found = sorted(folder.glob("*.inter"))
    if len(found) != 1:
        raise UserError(f"{folder}: holds {len(found)} .inter files, must hold one")
    return found[0]


def _read_inter(path: Path, order: Order | None) -> _Inter:
    columns = [*COLUMNS, *([order.column] if order and order.column else [])]
    try:
        table = csv.read_csv(
            path,
            parse_options=csv.ParseOptions(delimiter="\t"),
            convert_options=csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
        )
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable tab-separated file: {reason}") from None
    for name in columns:
        if name not in table.column_names:
            raise UserError(f"{path}: no column {name!r}; its columns are {table.column_names}")
    users, items, labels, *times = (_to_integers(path, table, name) for name in columns)
    if order and order.column is None:
        times = [np.arange(len(users))]
    inter = _Inter(path, users, items, labels, *times)
    if (wrong := np.flatnonzero(labels > 2)).size:
        value = labels[wrong[0]]
        raise inter.error(wrong[0], f"x_label is {value}, must be 0 (train), 1 (valid) or 2 (test)")
    return inter


def _to_integers(path: Path, table: pa.Table, name: str) -> NDArray[np.int64]:
    texts = table[name]
    # 18 digits always fit into int64.
    is_id = pc.match_substring_regex(texts, r"^\d{1,18}$")
    if not pc.all(is_id, min_count=0).as_py():
        row = pc.index(is_id, False).as_py()
        raise UserError(
            f"{path}: line {row + _FIRST_LINE}: {name} is {texts[row].as_py()!r}, "
            f"must be a non-negative integer"
        )
    return texts.cast(pa.int64()).to_numpy()


def _count_users(inter: _Inter) -> int:
    ids = np.unique(inter.users)
    _check_no_gap(inter, "userID", ids, inter.users)
    return len(ids)


def _count_items(inter: _Inter, paths: dict[str, Path], features: dict[str, NDArray[Any]]) -> int:
    """Number of items: one per feature row, so that items without interactions are known too."""
    if not features:
        ids = np.unique(inter.items)
        _check_no_gap(inter, "itemID", ids, inter.items)
        return len(ids)
    highest = int(inter.items.max(initial=-1))
    for name, values in features.items():
        if len(values) <= highest:
            raise UserError(
                f"{paths[name]}: {len(values)} rows, must be at least {highest + 1}: "
                f"itemID {highest} occurs in {inter.path.name}, "
                f"line {int(inter.items.argmax()) + _FIRST_LINE}"
            )
    num_rows = {name: len(values) for name, values in features.items()}
    if len(set(num_rows.values())) > 1:
        raise UserError(f"{inter.path.parent}: feature files differ in rows: {num_rows}")
    return next(iter(num_rows.values()))


def _check_no_gap(
    inter: _Inter, name: str, ids: NDArray[np.int64], column: NDArray[np.int64]
) -> None:
    gaps = np.flatnonzero(ids != np.arange(len(ids)))
    if gaps.size:
        missing, found = int(gaps[0]), int(ids[gaps[0]])
        row = int(np.flatnonzero(column == found)[0])
        raise inter.error(
            row,
            f"{name} is {found}, but {missing} does not occur; ids must be 0, 1, 2 ... "
            f"without gaps",
        )


def _check_split(inter: _Inter, num_items: int) -> None:
    in_train = inter.labels == 0
    if not in_train.any():
        raise UserError(f"{inter.path}: no row has x_label 0: the training split is empty")
    is_trained = np.zeros(int(inter.users.max()) + 1, dtype=bool)
    is_trained[inter.users[in_train]] = True
    if (untrained := np.flatnonzero(~is_trained[inter.users])).size:
        row = untrained[0]
        raise inter.error(
            row,
            f"userID {inter.users[row]} is in {SPLITS[inter.labels[row]]} but has no row with "
            f"x_label 0 (train), so nothing can be learned about it",
        )
    pairs = inter.users * num_items + inter.items
    _, first = np.unique(pairs, return_index=True)
    if len(first) < len(pairs):
        is_repeated = np.ones(len(pairs), dtype=bool)
        is_repeated[first] = False
        row = np.flatnonzero(is_repeated)[0]
        earlier = np.flatnonzero(pairs == pairs[row])[0] + _FIRST_LINE
        raise inter.error(
            row,
            f"userID {inter.users[row]} and itemID {inter.items[row]} were already on line "
            f"{earlier}; a pair may occur once",
        )


def _write_interactions(
    writer: CatalogWriter,
    inter: _Inter,
    user_index: NDArray[np.int64],
    item_index: NDArray[np.int64],
) -> None:
    for label, split in enumerate(SPLITS):
        rows = inter.labels == label
        users, items = user_index[inter.users[rows]], item_index[inter.items[rows]]
        order = np.lexsort((items, users))
        times = None if inter.times is None else inter.times[rows][order]
        users, items = users[order].astype(np.int32), items[order].astype(np.int32)
        writer.add_interactions(split, users, items, times)
