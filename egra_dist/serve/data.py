"""The files of an exported model, see :class:`egra_dist.serve.egra_model.recommender.Recommender`.

Nothing is held in memory but hashes of ids and a count per user: what is large is copied or filled
in by blocks.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog, Entities, Split
from egra_dist.catalog.features import RowBlocks
from egra_dist.catalog.writer import write_npy
from egra_dist.config import ExportSettings
from egra_dist.files import write_json
from egra_dist.graph.csr import Csr, starts_of
from egra_dist.graph.products import column_counts
from egra_dist.serve.egra_model.ids import write_ids
from egra_dist.serve.egra_model.recommender import HISTORY
from egra_dist.serve.index import write_index

TITLES = "titles.arrow"
"""What items are called, for those who read recommendations; absent where nobody knows."""
_BATCH_ROWS = 1 << 16
_TABLES: tuple[Entities, ...] = ("users", "items")


@dataclass(frozen=True)
class Trained:
    """What there is to export.

    Attributes:
        catalog: Ids, interactions, and features as they came, not as they were preprocessed.
        folder: Where the final vectors are.
        training: Folder of ``R``.
        seed: The run's.
        users: Where those of the users are, if elsewhere.
        decay: What an item of a history weighs against the one that was chosen next.
    """

    catalog: Catalog
    folder: Path
    training: Path
    seed: int
    users: Path | None = None
    decay: float = 1.0

    def file(self, entities: Entities) -> Path:
        """Where final vectors are."""
        folder = (self.users or self.folder) if entities == "users" else self.folder
        return folder / f"{entities[:-1]}_vectors.npy"

    def vectors(self, entities: Entities) -> NDArray[np.float32]:
        """Final vectors ``float32 [num_entities, dim]``, memory-mapped."""
        vectors: NDArray[np.float32] = np.load(self.file(entities), mmap_mode="r")
        return vectors


def write_data(trained: Trained, settings: ExportSettings, folder: Path) -> dict[str, Any]:
    """Writes what a recommender opens.

    Args:
        trained: What there is to export.
        settings: The index, and what goes along.
        folder: Created.

    Returns:
        What became of the index.
    """
    catalog = trained.catalog
    folder.mkdir()
    for entities in _TABLES:
        vectors = trained.file(entities)
        shutil.copyfile(vectors, folder / vectors.name)
        ids = catalog.iter_raw_ids(entities, _BATCH_ROWS)
        write_ids(ids, catalog.id_type(entities), folder / entities)
    if trained.decay < 1:
        write_json(folder / HISTORY, {"decay": trained.decay})
    np.save(folder / "counts.npy", column_counts(Csr.load(trained.training)))
    write_seen(catalog, settings.leave_out, folder)
    (folder / "features").mkdir()
    for name in catalog.modalities if settings.features else ():
        _write_directions(catalog, name, folder / "features" / f"{name}.npy")
    titles = catalog.item_column(settings.title)
    if titles is not None:
        _write_titles(titles, folder / TITLES)
    users, items = map(trained.vectors, _TABLES)
    return write_index(users, items, settings, trained.seed, folder / "index.faiss")


def _write_titles(titles: pa.ChunkedArray, path: Path) -> None:
    table = pa.table({"title": titles.cast(pa.string())})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def write_seen(catalog: Catalog, splits: Sequence[Split], folder: Path) -> None:
    """Writes ``seen_starts.npy`` and ``seen_items.npy``: what each user is never recommended."""
    counts = np.zeros(catalog.num_users, np.int64)
    for users, _ in _interactions(catalog, splits):
        counts += np.bincount(users, minlength=catalog.num_users)
    starts = starts_of(counts)
    np.save(folder / "seen_starts.npy", starts)
    items = open_memmap(folder / "seen_items.npy", "w+", np.int32, (max(int(starts[-1]), 1),))
    ends = starts[:-1].copy()
    for users, chosen in _interactions(catalog, splits):
        firsts = np.searchsorted(users, users)  # users ascend
        items[ends[users] + np.arange(len(users)) - firsts] = chosen
        ends += np.bincount(users, minlength=catalog.num_users)
    items.flush()


def _interactions(
    catalog: Catalog, splits: Sequence[Split]
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    for split in splits:
        yield from catalog.iter_interactions(split, 1 << 20)


def _write_directions(catalog: Catalog, modality: str, path: Path) -> None:
    """Features at length 1, in half precision; rows of zeros stay."""
    values = catalog.features(modality).values

    def directions() -> Iterator[NDArray[np.float16]]:
        for block in RowBlocks(values):
            lengths = np.linalg.norm(block.astype(np.float32), axis=1, keepdims=True)
            yield (block / np.where(lengths > 0, lengths, 1)).astype(np.float16)

    write_npy(path, directions(), len(values))
