"""An exported model without a training: vectors drawn at random, everything else as it is."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from egra_dist.catalog.catalog import SPLITS, Catalog
from egra_dist.catalog.writer import writing_catalog
from egra_dist.config import ExportSettings
from egra_dist.graph.behavior import training_matrix
from egra_dist.serve.data import Trained, write_data
from egra_dist.serve.model import DATA, save_model

WIDTHS = {"image": 6, "text": 4}


@dataclass(frozen=True)
class Exported:
    """What was exported, and what it was made from."""

    catalog: Catalog
    model: Path
    users: NDArray[np.float32]
    items: NDArray[np.float32]
    facts: dict
    trained: Path
    training: Path

    @property
    def data(self) -> Path:
        return self.model / DATA

    def seen(self, splits=SPLITS) -> list[NDArray[np.int64]]:
        """Items of each user."""
        pairs = [np.stack(self.catalog.interactions(split)) for split in splits]
        users, items = np.concatenate(pairs, axis=1).astype(np.int64)
        order = np.argsort(users, kind="stable")
        ends = np.searchsorted(users[order], np.arange(1, len(self.users)))
        return np.split(items[order], ends)

    def ranking(self, vector, left_out, k) -> list[tuple[str, float]]:
        """The best items by a full sort in float64."""
        scores = self.items.astype(np.float64) @ vector.astype(np.float64)
        scores[left_out] = -np.inf
        best = np.lexsort((np.arange(len(scores)), -scores))[:k]
        return [(f"i{item}", scores[item]) for item in best if scores[item] > -np.inf]


def export_at_random(
    folder: Path,
    num_users: int = 40,
    num_items: int = 60,
    dim: int = 8,
    history: int = 6,
    settings: ExportSettings | None = None,
) -> Exported:
    """Writes a catalogue and a model; the last five items have no interactions."""
    random = np.random.default_rng(0)
    catalog = _catalog(folder / "catalog", num_users, num_items, history, random)
    users, items = (
        random.standard_normal((count, dim)).astype(np.float32) for count in (num_users, num_items)
    )
    trained = folder / "trained"
    trained.mkdir()
    np.save(trained / "user_vectors.npy", users)
    np.save(trained / "item_vectors.npy", items)
    training_matrix(catalog).save(folder / "training")
    source = Trained(catalog, trained, folder / "training", seed=0)
    facts = write_data(source, settings or ExportSettings(), folder / "data")
    save_model(folder / "data", folder / "model")
    places = (trained, folder / "training")
    return Exported(catalog, folder / "model", users, items, facts, *places)


def _catalog(
    folder: Path, num_users: int, num_items: int, history: int, random: np.random.Generator
) -> Catalog:
    chosen = np.argsort(random.random((num_users, min(num_items - 5, 200))), axis=1)[:, :history]
    chosen = chosen * 7919 + 31 * np.arange(num_users)[:, None]
    chosen = np.sort(chosen % (num_items - 5), axis=1).astype(np.int32)
    ends = {"train": (0, history - 2), "valid": (history - 2, -1), "test": (history - 1, history)}
    with writing_catalog(folder, {"random": [num_users, num_items, history]}, {}) as writer:
        writer.add_entities("users", pa.table({"raw_id": [f"u{n}" for n in range(num_users)]}))
        names = {"raw_id": [f"i{n}" for n in range(num_items)]}
        writer.add_entities(
            "items", pa.table(names | {"title": [f"T{n}" for n in range(num_items)]})
        )
        for split, (start, stop) in ends.items():
            part = chosen[:, start:stop]
            users = np.repeat(np.arange(num_users, dtype=np.int32), part.shape[1])
            writer.add_interactions(split, users, part.ravel())
        for modality, width in WIDTHS.items():
            values = random.standard_normal((num_items, width)).astype(np.float32)
            values[3] = 0
            writer.add_features(modality, [values], values.any(axis=1))
    return Catalog.open(folder)
