"""Lists of the best items for all users: independent tasks, each a part file of Parquet."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from egra_dist.graph.buckets import Map

if TYPE_CHECKING:
    from egra_dist.serve.egra_model.recommender import Recommender

_USERS_PER_PART = 1 << 16
_USERS_PER_BLOCK = 1024


@dataclass(frozen=True)
class Part:
    """The users of one part file.

    Attributes:
        data: Folder of the model's files.
        digest: Identity of their content.
        path: The part file.
        start: The first user's row.
        stop: The row after the last.
        k: Items per user.
    """

    data: Path
    digest: str
    path: Path
    start: int
    stop: int
    k: int


def write_lists(
    data: Path, digest: str, num_users: int, k: int, folder: Path, run: Map = map
) -> int:
    """Writes ``raw_id``, ``items`` and ``scores`` of every user, seen items left out.

    Args:
        data: Folder of the model's files; shared with whoever does the tasks, as is ``folder``.
        digest: Identity of their content.
        num_users: Number of users.
        k: Items per user; a user who has seen more has fewer.
        folder: Where ``part-00000.parquet`` and its like go.
        run: Who does the tasks.

    Returns:
        Number of users that were written.
    """
    parts = [
        Part(data, digest, folder / f"part-{number:05}.parquet", start, stop, k)
        for number, (start, stop) in enumerate(_ranges(num_users, _USERS_PER_PART))
    ]
    return sum(run(write_part, parts))


def write_part(part: Part) -> int:
    """Does one task; returns the number of its users."""
    recommender = _open(part.data, part.digest)
    users, items = recommender.users, recommender.items
    schema = pa.schema(
        [
            ("raw_id", users.column.type),
            ("items", pa.list_(items.column.type)),
            ("scores", pa.list_(pa.float64())),
        ]
    )
    with closing(pq.ParquetWriter(part.path, schema)) as writer:
        for start, stop in _ranges(part.stop - part.start, _USERS_PER_BLOCK):
            rows = range(part.start + start, part.start + stop)
            best = recommender.best_of_users(rows, part.k)
            found = best.items >= 0
            ends = np.concatenate([[0], np.cumsum(found.sum(axis=1))]).astype(np.int32)
            columns = [
                pa.array(users.of_rows(rows), users.column.type),
                pa.ListArray.from_arrays(
                    ends, pa.array(items.of_rows(best.items[found]), items.column.type)
                ),
                pa.ListArray.from_arrays(ends, pa.array(best.scores[found])),
            ]
            writer.write_table(pa.table(columns, schema=schema))
    return part.stop - part.start


@lru_cache(maxsize=1)
def _open(data: Path, digest: str) -> "Recommender":
    from egra_dist.serve.egra_model.recommender import Recommender

    return Recommender.open(data)


def _ranges(num_rows: int, size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + size, num_rows)) for start in range(0, num_rows, size))
