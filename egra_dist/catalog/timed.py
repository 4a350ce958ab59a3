"""Training interactions with their times, whole users at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog, readable
from egra_dist.catalog.checking import check_pairs, check_range
from egra_dist.errors import UserError

_TIME = "time"
_BATCH_ROWS = 1 << 20


class Timed(NamedTuple):
    """Interactions, sorted by user, then item.

    Attributes:
        users: ``int32 [num_interactions]``.
        items: ``int32 [num_interactions]``.
        times: ``int64 [num_interactions]``; all 0 where they are not known.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    times: NDArray[np.int64]

    def take(self, rows: slice) -> "Timed":
        """Some of them."""
        return Timed(self.users[rows], self.items[rows], self.times[rows])

    def and_then(self, other: "Timed") -> "Timed":
        """These and others that follow them."""
        return Timed(
            np.concatenate([self.users, other.users]),
            np.concatenate([self.items, other.items]),
            np.concatenate([self.times, other.times]),
        )


def has_times(catalog: Catalog) -> bool:
    """Whether all training interactions have a time."""
    return all(_has_times(_schema(part)) for part in catalog.interaction_parts("train"))


def check_times(catalog: Catalog) -> None:
    """Refuses a catalogue that does not know in which order users chose.

    Raises:
        UserError: If training interactions have no times.
    """
    if not has_times(catalog):
        raise UserError(
            f"{catalog.path}: has no times, which histories need; ingest it with --time COL, or "
            "set history.decays=[1]"
        )


def iter_timed(catalog: Catalog, users: slice, batch_rows: int = _BATCH_ROWS) -> Iterator[Timed]:
    """The training interactions of a block of users; a user's are never cut.

    Args:
        catalog: Where they are.
        users: The block.
        batch_rows: About how many come at a time.

    Raises:
        UserError: If a file is not readable, or a time is missing in a column of times.
    """
    held = Timed(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int64))
    for part in catalog.interaction_parts("train"):
        for rows in _read(catalog, part, users, batch_rows):
            first, last = np.searchsorted(rows.users, [users.start, users.stop])
            known = held.and_then(rows.take(slice(first, last)))
            # The last user may go on in what comes next.
            cut = int(np.searchsorted(known.users, known.users[-1])) if len(known.users) else 0
            if cut:
                yield known.take(slice(0, cut))
            held = known.take(slice(cut, None))
    if len(held.users):
        yield held


def _schema(part: Path) -> pa.Schema:
    with readable(part):
        return pq.read_schema(part)


def _has_times(schema: pa.Schema) -> bool:
    return _TIME in schema.names and schema.field(_TIME).type == pa.int64()


def _read(catalog: Catalog, part: Path, users: slice, batch_rows: int) -> Iterator[Timed]:
    """Batches of a part, of those of its groups of rows that may have the users."""
    with readable(part), pq.ParquetFile(part) as file:
        check_pairs(file.schema_arrow, part)
        names = ["user", "item", *([_TIME] if _has_times(file.schema_arrow) else [])]
        groups = [n for n in range(file.num_row_groups) if _may_have(file, n, users)]
        for batch in file.iter_batches(batch_rows, row_groups=groups, columns=names):
            own = check_range(batch["user"], catalog.num_users, part)
            items = check_range(batch["item"], catalog.num_items, part)
            yield Timed(own, items, _times(batch, part))


def _may_have(file: pq.ParquetFile, group: int, users: slice) -> bool:
    place = file.schema_arrow.get_field_index("user")
    found = file.metadata.row_group(group).column(place).statistics
    if found is None or not found.has_min_max:
        return True
    return bool(found.min < users.stop and found.max >= users.start)


def _times(batch: pa.RecordBatch, part: Path) -> NDArray[np.int64]:
    if _TIME not in batch.schema.names:
        return np.zeros(batch.num_rows, np.int64)
    if batch[_TIME].null_count:
        raise UserError(f"{part}: a time is missing")
    times: NDArray[np.int64] = batch[_TIME].to_numpy()
    return times
