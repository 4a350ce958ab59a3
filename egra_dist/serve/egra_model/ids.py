"""Raw ids on disk: from row to id, and from id to row without holding either in memory.

``ids.arrow`` has the ids in the order of rows, memory-mapped. ``hashes.npy`` has a 64-bit hash of
each, ascending, and ``rows.npy`` whose it is; a hash that two ids share is told apart by the ids.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

RawId = str | int
_LARGEST_EXACT_FLOAT = 2**53


@dataclass(frozen=True)
class Ids:
    """The raw ids of all users or of all items.

    Attributes:
        column: Id of each row: strings or int64.
        hashes: ``uint64 [num_rows]``, ascending.
        rows: ``int64 [num_rows]``: the row of each hash.
    """

    column: pa.ChunkedArray
    hashes: NDArray[np.uint64]
    rows: NDArray[np.int64]

    @classmethod
    def open(cls, folder: Path) -> "Ids":
        """Opens what :func:`write_ids` wrote, memory-mapped."""
        table = pa.ipc.open_file(pa.memory_map(str(folder / "ids.arrow"))).read_all()
        hashes, rows = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in _LOOKUP)
        return cls(table.column(0), hashes, rows)

    def __len__(self) -> int:
        return len(self.column)

    @property
    def are_integers(self) -> bool:
        """Whether they are numbers rather than strings."""
        return pa.types.is_integer(self.column.type)

    def of_rows(self, rows: Iterable[int]) -> list[RawId]:
        """The ids of some rows."""
        return [self.column[int(row)].as_py() for row in rows]

    def find(self, ids: Sequence[RawId]) -> NDArray[np.int64]:
        """The row of each id, ``int64 [num_ids]``; -1 where there is no such id."""
        return np.fromiter(map(self._find, ids), np.int64, len(ids))

    def parse(self, value: Any) -> RawId:
        """An id as a request gives it, in the type that ids have here.

        JSON tables turn whole columns of integers into floats where one is missing.

        Raises:
            ValueError: If it cannot be an id; the message says what it must be.
        """
        if not self.are_integers:
            if isinstance(value, str) and value:
                return value
            raise ValueError("must be a string")
        if isinstance(value, float) and value.is_integer():
            if abs(value) > _LARGEST_EXACT_FLOAT:
                raise ValueError("is too large for a number beside missing ones; give a string")
            return int(value)
        if isinstance(value, str) and value.removeprefix("-").isdecimal():
            return int(value)
        if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
            return int(value)
        raise ValueError("must be an integer")

    def _find(self, raw: RawId) -> int:
        wanted = _hash(raw)
        place = int(np.searchsorted(self.hashes, wanted))
        while place < len(self.hashes) and self.hashes[place] == wanted:
            row = int(self.rows[place])
            if self.column[row].as_py() == raw:
                return row
            place += 1
        return -1


_LOOKUP = ("hashes", "rows")


def write_ids(batches: Iterable[pa.Array], kind: pa.DataType, folder: Path) -> None:
    """Writes ids for :class:`Ids`, batch by batch; hashes are sorted in memory.

    Args:
        batches: The ids in the order of rows.
        kind: Their type.
        folder: Created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("raw_id", kind)])
    parts: list[NDArray[np.uint64]] = []
    with pa.ipc.new_file(str(folder / "ids.arrow"), schema) as writer:
        for batch in batches:
            writer.write_batch(pa.record_batch([batch], schema=schema))
            parts.append(np.fromiter(_hashes(batch), np.uint64, len(batch)))
    hashes = np.concatenate(parts) if parts else np.empty(0, np.uint64)
    order = np.argsort(hashes, kind="stable")
    for name, values in zip(_LOOKUP, (hashes[order], order), strict=True):
        np.save(folder / f"{name}.npy", values)


def _hashes(batch: pa.Array) -> Iterator[np.uint64]:
    return map(_hash, batch.to_pylist())


def _hash(raw: RawId) -> np.uint64:
    digest = blake2b(str(raw).encode(errors="surrogatepass"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))
