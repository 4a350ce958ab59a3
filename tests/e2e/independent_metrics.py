"""Test metrics of a run from its exported vectors alone, with numpy: nothing of egra_dist.

    python tests/e2e/independent_metrics.py RUN/export CATALOG

Vectors come from the Parquet export by raw id, interactions from the catalogue's Parquet files, by
position in its tables of users and items. Every item but a user's training items is ranked by inner
product, in float64, and of equal scores the item that comes first in the table stands first.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

CUTOFFS = (5, 10, 20, 50)


def read(export: Path, catalog: Path, entities: str) -> np.ndarray:
    """Vectors in the order of the catalogue's table."""
    table = pq.read_table(export / entities)
    rows = {raw: row for row, raw in enumerate(table["raw_id"].to_pylist())}
    ids = pq.read_table(catalog / entities, columns=["raw_id"])["raw_id"].to_pylist()
    assert len(ids) == len(rows)
    vectors = np.stack(table["vector"].to_numpy()).astype(np.float64)
    return vectors[[rows[raw] for raw in ids]]


def interactions(catalog: Path, split: str) -> dict[int, list[int]]:
    """Items of each user."""
    table = pq.read_table(catalog / "interactions" / split, columns=["user", "item"])
    items: dict[int, list[int]] = {}
    for user, item in zip(table["user"].to_pylist(), table["item"].to_pylist(), strict=True):
        items.setdefault(user, []).append(item)
    return items


def metrics(export: Path, catalog: Path) -> dict[str, float]:
    """Recall and NDCG of the test split at every cutoff, means over its users."""
    users, items = (read(export, catalog, entities) for entities in ("users", "items"))
    train, test = (interactions(catalog, split) for split in ("train", "test"))
    sums = {f"{name}_at_{k}": 0.0 for name in ("recall", "ndcg") for k in CUTOFFS}
    for user, wanted in test.items():
        scores = items @ users[user]
        scores[train.get(user, [])] = -np.inf
        ranking = np.lexsort((np.arange(len(items)), -scores))
        hits = np.isin(ranking, wanted) & (scores[ranking] > -np.inf)
        gains = 1 / np.log2(np.arange(2, len(items) + 2))
        for k in CUTOFFS:
            sums[f"recall_at_{k}"] += hits[:k].sum() / len(wanted)
            sums[f"ndcg_at_{k}"] += (hits * gains)[:k].sum() / gains[: min(k, len(wanted))].sum()
    return {name: total / len(test) for name, total in sums.items()}


if __name__ == "__main__":
    print(json.dumps(metrics(*map(Path, sys.argv[1:]))))
