"""Ranges of rows, each done as a whole and kept under the digest of what it was made from.

A range that is on disk is not encoded again: neither after an interruption, nor when the table
grew, as long as its rows and the encoder are the same.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egra_dist.featurize.contents import Contents
from egra_dist.files import write_json

FEATURES = "features.npy"
_RANGES = "ranges.json"


@dataclass(frozen=True)
class Range:
    """Rows ``start`` to ``stop``, and the digest of their content and the encoder."""

    start: int
    stop: int
    digest: str

    def __len__(self) -> int:
        return self.stop - self.start


def plan_ranges(
    contents: Contents, encoder_digest: str, folder: Path, rows_per_range: int
) -> list[Range]:
    """Cuts the rows into ranges.

    Args:
        contents: What is encoded. Of image files path, size and time of change stand for the
            content, which is not read.
        encoder_digest: Of what encodes them, and how.
        folder: Where relative paths of images start.
        rows_per_range: Rows of each range but the last.
    """
    ranges = []
    for start in range(0, len(contents), rows_per_range):
        stop = min(start + rows_per_range, len(contents))
        values = contents.values[start:stop].to_pylist()
        if contents.kind == "image":
            values = [_file_state(folder, path) for path in values]
        text = json.dumps([encoder_digest, values])
        ranges.append(Range(start, stop, hashlib.sha256(text.encode()).hexdigest()[:32]))
    return ranges


def _file_state(folder: Path, path: str | None) -> list[Any] | None:
    if path is None:
        return None
    try:
        state = (folder / path).stat()
    except (OSError, ValueError):
        return [path, None]
    return [path, state.st_size, state.st_mtime_ns]


class RangeStore:
    """The finished ranges: one ``.npy`` file each, ``[num_rows, dim]``, zero where missing.

    A range without any vector has width 0.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def __contains__(self, part: Range) -> bool:
        return self._path(part).exists()

    def write(self, part: Range, values: NDArray[Any]) -> None:
        """Keeps the vectors of a range, whole or not at all."""
        path = self._path(part)
        temporary = path.with_suffix(".partial")
        with temporary.open("wb") as file:
            np.save(file, values)
        temporary.replace(path)

    def read(self, part: Range) -> NDArray[Any]:
        """The vectors of a range."""
        return np.load(self._path(part))

    def adopt(self, earlier: Path, ranges: Sequence[Range]) -> None:
        """Takes over the ranges that an earlier output holds."""
        if not (earlier / _RANGES).exists():
            return
        values = np.load(earlier / FEATURES, mmap_mode="r")
        places = json.loads((earlier / _RANGES).read_text())
        for part in ranges:
            if part not in self and part.digest in places:
                start, stop = places[part.digest]
                self.write(part, values[start:stop])

    def blocks(self, ranges: Sequence[Range]) -> Iterator[NDArray[Any]]:
        """The vectors of all ranges in order, all of one width."""
        dim, dtype = self._shape(ranges)
        for part in ranges:
            values = self.read(part)
            yield values if values.shape[1] else np.zeros((len(part), dim), dtype)

    def has_vectors(self, ranges: Sequence[Range]) -> bool:
        """Whether any row is not missing."""
        return self._shape(ranges)[0] > 0

    def remove(self) -> None:
        """Deletes all files."""
        shutil.rmtree(self._folder)

    def _shape(self, ranges: Sequence[Range]) -> tuple[int, np.dtype[Any]]:
        for part in ranges:
            values = np.load(self._path(part), mmap_mode="r")
            if values.shape[1]:
                return values.shape[1], values.dtype
        return 0, np.dtype(np.float32)

    def _path(self, part: Range) -> Path:
        return self._folder / f"{part.digest}.npy"


def write_places(folder: Path, ranges: Sequence[Range]) -> None:
    """Notes in a finished output which rows are which range, for :meth:`RangeStore.adopt`."""
    write_json(folder / _RANGES, {part.digest: [part.start, part.stop] for part in ranges})
