"""The catalogue: who interacted with what, and what the items look, read and sound like.

Every reader (`mmrec`, `events`, `synth`) writes this one layout, and everything after it reads
users and items as dense indices, which stand in shuffled order so that contiguous row shards
carry equal load. ``docs/data.md`` describes the files.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from egra_dist.catalog.checking import check_counts, check_pairs, check_range, load_array
from egra_dist.errors import UserError
from egra_dist.files import inside
from egra_dist.manifest import Manifest, read_manifest

KIND = "catalog"
Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
Entities = Literal["users", "items"]


@dataclass(frozen=True)
class Features:
    """One modality of all items.

    Attributes:
        values: ``float16 or float32 [num_items, dim]``, memory-mapped; zero where missing.
        present: ``bool [num_items]``: whether the item has this modality.
    """

    values: NDArray[Any]
    present: NDArray[np.bool_]

    @property
    def dim(self) -> int:
        """Width of a feature row."""
        return int(self.values.shape[1])


@dataclass(frozen=True)
class Catalog:
    """A finished catalogue folder.

    Attributes:
        path: The folder.
        manifest: What it holds.
        features_folder: Where features are read instead, preprocessed; its own when None.
        uri: Where the folder was fetched from, if it was.
    """

    path: Path
    manifest: Manifest
    features_folder: Path | None = None
    uri: str | None = None

    @classmethod
    def open(cls, path: Path) -> "Catalog":
        """Opens a catalogue.

        Raises:
            UserError: If ``path`` is not a finished catalogue of this schema version.
        """
        manifest = read_manifest(path, KIND)
        check_counts(manifest, path, SPLITS)
        return cls(path, manifest)

    @property
    def digest(self) -> str:
        """Identity of the content."""
        return self.manifest.digest

    @property
    def num_users(self) -> int:
        """Number of users."""
        return int(self.manifest.counts["num_users"])

    @property
    def num_items(self) -> int:
        """Number of items, those without any interaction included."""
        return int(self.manifest.counts["num_items"])

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, sorted."""
        return tuple(sorted(self.manifest.counts["modalities"]))

    def num_interactions(self, split: Split) -> int:
        """Number of interactions of a split."""
        return int(self.manifest.counts["num_interactions"][split])

    def interactions(self, split: Split) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """All interactions of a split, sorted by user, then item.

        Returns:
            Users and items, each ``int32 [num_interactions]``.
        """
        users = np.empty(self.num_interactions(split), dtype=np.int32)
        items = np.empty_like(users)
        start = stop = 0
        for batch_users, batch_items in self.iter_interactions(split, batch_rows=1 << 20):
            stop = start + len(batch_users)
            if stop > len(users):
                break
            users[start:stop], items[start:stop] = batch_users, batch_items
            start = stop
        if start != len(users) or stop > len(users):
            raise UserError(
                f"{self.path}: {split} has other rows than the {len(users)} of its manifest; "
                "write the catalogue anew"
            )
        return users, items

    def iter_interactions(
        self, split: Split, batch_rows: int
    ) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """The same as :meth:`interactions`, in batches of at most ``batch_rows``."""
        for part in self.interaction_parts(split):
            yield from self.iter_part(part, batch_rows)

    def interaction_parts(self, split: Split) -> list[Path]:
        """The files that together hold the interactions of a split, in their order."""
        return self._parts(Path("interactions") / split)

    def iter_part(
        self, part: Path, batch_rows: int
    ) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """Users and items of one of :meth:`interaction_parts`, in batches."""
        with readable(part), pq.ParquetFile(part) as file:
            check_pairs(file.schema_arrow, part)
            for batch in file.iter_batches(batch_rows, columns=["user", "item"]):
                users = check_range(batch["user"], self.num_users, part)
                yield users, check_range(batch["item"], self.num_items, part)

    def features(self, modality: str) -> Features:
        """The features of one modality, memory-mapped.

        Raises:
            UserError: If the catalogue has no such modality.
        """
        if modality not in self.modalities:
            raise UserError(
                f"{self.path}: no modality {modality!r}; it has {list(self.modalities)}"
            )
        folder = self.features_folder or self.path / "features"
        return Features(
            values=load_array(folder, f"{modality}.npy", self.num_items, "f", 2),
            present=load_array(folder, f"{modality}.present.npy", self.num_items, "b", 1),
        )

    def raw_ids(self, entities: Entities) -> pa.ChunkedArray:
        """The ids that the user knows, by dense index: strings or int64."""
        column = self._column(entities, "raw_id")
        num_rows = self.num_users if entities == "users" else self.num_items
        if column is None or len(column) != num_rows:
            raise UserError(
                f"{self.path / entities}: must have a column 'raw_id' of {num_rows} rows; "
                "write the catalogue anew"
            )
        return column

    def iter_raw_ids(self, entities: Entities, batch_rows: int) -> Iterator[pa.Array]:
        """The same as :meth:`raw_ids`, in batches of at most ``batch_rows``."""
        for part in self._parts(Path(entities)):
            with readable(part), pq.ParquetFile(part) as file:
                for batch in file.iter_batches(batch_rows, columns=["raw_id"]):
                    yield batch.column(0)

    def id_type(self, entities: Entities) -> pa.DataType:
        """Type of the raw ids: strings or int64."""
        part = self._parts(Path(entities))[0]
        with readable(part):
            return pq.read_schema(part).field("raw_id").type

    def item_column(self, name: str) -> pa.ChunkedArray | None:
        """A column of the item table (such as ``title``) by dense index; None if there is none."""
        return self._column("items", name)

    def _column(self, entities: Entities, name: str) -> pa.ChunkedArray | None:
        columns = []
        for part in self._parts(Path(entities)):
            with readable(part), pq.ParquetFile(part) as file:
                if name not in file.schema_arrow.names:
                    return None
                columns.append(file.read(columns=[name]).column(name))
        return pa.chunked_array([chunk for column in columns for chunk in column.chunks])

    def _parts(self, folder: Path) -> list[Path]:
        found = sorted((self.path / folder).glob("part-*.parquet"))
        parts = [inside(self.path, part) for part in found]
        if not parts:
            raise UserError(f"{self.path / folder}: no parts; write the catalogue anew")
        return parts


@contextmanager
def readable(part: Path) -> Iterator[None]:
    """Names the file where what is read in the block is no Parquet.

    Raises:
        UserError: Instead of what the library raises.
    """
    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{part}: not a readable Parquet file: {reason}") from None
