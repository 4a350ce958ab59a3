"""Edges in any order become sorted rows, block of rows by block of rows, in bounded memory.

An external sort: one pass over the edges counts them by row and chooses blocks of rows with about
as many edges each; a second one cuts every piece of the stream by block of rows and leaves it in a
file; then each block is gathered from the files and sorted on its own. Neither depends on how many
workers do it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from egra_dist.graph.csr import Csr, starts_of
from egra_dist.graph.edges import EdgeBlock, EdgeStream
from egra_dist.graph.partition import RowPartition

ENTRIES_PER_BLOCK = 1 << 23
"""Edges that are sorted at once, about: 64 MB of keys."""
_MAX_BINS = 1 << 20
_MAX_BLOCKS = 1 << 16

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Repeats = Literal["once", "largest", "smallest_of_two"]


class Map(Protocol):
    """Applies a picklable function to items, here or elsewhere, as the builtin ``map`` does."""

    def __call__(
        self, function: Callable[[_Item], _Result], items: Iterable[_Item], /
    ) -> Iterable[_Result]:
        """Returns the results in the order of the items."""


@dataclass(frozen=True)
class BucketedRows:
    """Edges cut by block of rows.

    Attributes:
        folder: Where the pieces are: ``<stream>.keys``, ``<stream>.values`` (empty where all are
            1), and ``<stream>.cuts.npy``, where in them each block of rows starts.
        blocks: The blocks of rows.
        num_columns: Number of columns.
        repeats: What becomes of an edge that occurs repeatedly: it is there ``once``, with its
            ``largest`` value, or only if it occurs twice, with the ``smallest_of_two`` values.
    """

    folder: Path
    blocks: RowPartition
    num_columns: int
    repeats: Repeats = "once"

    def read(self, number: int) -> Csr:
        """The rows of a block, without entries of value 0."""
        keys, values = [], []
        for path in sorted(self.folder.glob("*.cuts.npy")):
            stream = self.folder / path.name.removesuffix(".cuts.npy")
            cuts = np.load(path)[:, number : number + 2]
            keys += _pieces(stream.with_suffix(".keys"), np.int64, cuts)
            values += _pieces(stream.with_suffix(".values"), np.float32, cuts)
        joined = np.concatenate([np.empty(0, np.int64), *keys])
        weights = np.concatenate(values) if values else None
        del keys, values
        return self._sorted_rows(self.blocks.size(number), joined, weights)

    def _sorted_rows(
        self, num_rows: int, keys: NDArray[np.int64], values: NDArray[np.float32] | None
    ) -> Csr:
        if values is None:
            keys.sort()
        else:
            order = np.argsort(keys, kind="stable")
            keys, values = keys[order], values[order]
        keys, values = _without_repeats(keys, values, self.repeats)
        rows = keys // self.num_columns  # a division by one number is fast, divmod is not
        keys -= rows * self.num_columns
        counts = np.bincount(rows, minlength=num_rows)
        return Csr(starts_of(counts), keys.astype(np.int32), values, self.num_columns)


def bucket(
    streams: Sequence[EdgeStream],
    shape: tuple[int, int],
    folder: Path,
    run: Map,
    repeats: Repeats = "once",
) -> BucketedRows:
    """Cuts edges by blocks of rows.

    Args:
        streams: The edges, each stream a task.
        shape: Rows and columns of the matrix; below ``2**31``.
        folder: Where the pieces go; created.
        run: Who does the tasks.
        repeats: See :class:`BucketedRows`.
    """
    folder.mkdir(parents=True)
    num_rows, num_columns = shape
    rows_per_bin = -(-max(num_rows, 1) // _MAX_BINS)
    num_bins = -(-max(num_rows, 1) // rows_per_bin)
    entries = np.zeros(num_bins, dtype=np.int64)
    for counted in run(partial(_count, rows_per_bin, num_bins), streams):
        entries += counted
    blocks = balanced_blocks(entries, rows_per_bin, num_rows)
    assert blocks.num_ranks < _MAX_BLOCKS, "edges are cut with the help of 16-bit numbers"
    for _ in run(partial(_cut, blocks, num_columns, folder), enumerate(streams)):
        pass
    return BucketedRows(folder, blocks, num_columns, repeats)


def balanced_blocks(entries: NDArray[np.int64], rows_per_bin: int, num_rows: int) -> RowPartition:
    """Blocks of rows of about ``ENTRIES_PER_BLOCK`` entries each.

    Args:
        entries: ``[num_bins]`` entries of each run of ``rows_per_bin`` rows.
        rows_per_bin: Rows of a bin; a block holds whole bins.
        num_rows: Number of rows.
    """
    before = np.concatenate([[0], np.cumsum(entries)])
    wanted = np.arange(0, before[-1], ENTRIES_PER_BLOCK)[1:]
    inner = np.searchsorted(before, wanted) * rows_per_bin
    return RowPartition(np.unique(np.minimum([0, *inner, num_rows], num_rows)).astype(np.int64))


def blocks_of(matrices: Sequence[Csr], num_rows: int) -> RowPartition:
    """Blocks of about as many entries each, of matrices whose last rows are the same ones.

    Args:
        matrices: A matrix with fewer rows has the last ``matrix.num_rows`` of them.
        num_rows: Number of rows.
    """
    rows_per_bin = -(-max(num_rows, 1) // _MAX_BINS)
    edges = np.append(np.arange(0, num_rows, rows_per_bin), num_rows)
    before = sum(
        np.asarray(matrix.indptr[np.maximum(edges - (num_rows - matrix.num_rows), 0)])
        for matrix in matrices
    )
    return balanced_blocks(np.diff(before), rows_per_bin, num_rows)


def _count(rows_per_bin: int, num_bins: int, stream: EdgeStream) -> NDArray[np.int64]:
    entries = np.zeros(num_bins, dtype=np.int64)
    for edges in stream.blocks():
        entries += np.bincount(edges.rows // rows_per_bin, minlength=num_bins)
    return entries


def _cut(
    blocks: RowPartition, num_columns: int, folder: Path, numbered: tuple[int, EdgeStream]
) -> None:
    """Leaves a stream's edges as keys, block after block of rows within each of its own blocks.

    A key is ``row * num_columns + column``, the row counted from the first of its block. Whatever
    an earlier attempt has left is overwritten.
    """
    number, stream = numbered
    path = folder / f"{number:06d}"
    cuts = [np.zeros((0, blocks.num_ranks + 1), dtype=np.int64)]
    written = 0
    with path.with_suffix(".keys").open("wb") as keys, path.with_suffix(".values").open("wb") as v:
        for edges in stream.blocks():
            owners = blocks.owner_of(edges.rows)
            order = np.argsort(owners.astype(np.uint16), kind="stable")
            _keys(edges, blocks.starts[owners], num_columns)[order].tofile(keys)
            if edges.values is not None:
                edges.values[order].tofile(v)
            counts = np.bincount(owners, minlength=blocks.num_ranks)
            cuts.append(written + np.concatenate([[0], np.cumsum(counts)])[None])
            written += len(order)
    np.save(path.with_suffix(".cuts.npy"), np.concatenate(cuts))


def _keys(edges: EdgeBlock, first: NDArray[np.int64], num_columns: int) -> NDArray[np.int64]:
    keys = edges.rows - first
    keys *= num_columns
    keys += edges.columns
    return keys


def _pieces(path: Path, dtype: type, cuts: NDArray[np.int64]) -> list[NDArray]:
    """The runs of entries between each two ``cuts [num_pieces, 2]``."""
    if not path.stat().st_size:
        return []
    entries = np.memmap(path, dtype, mode="r")
    return [np.array(entries[first:last]) for first, last in cuts]


def _without_repeats(
    keys: NDArray[np.int64], values: NDArray[np.float32] | None, repeats: Repeats
) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
    """Every key once; ``keys`` ascend."""
    is_first = np.ones(len(keys), dtype=bool)
    is_first[1:] = keys[1:] != keys[:-1]
    if values is None:
        # Of two equal keys that stand next to each other the second is the one that is not first.
        return keys[~is_first if repeats == "smallest_of_two" else is_first], None
    starts = np.flatnonzero(is_first)
    if repeats == "once" or not len(starts):
        reduced = values[starts]
    else:
        reduced = (np.maximum if repeats == "largest" else np.minimum).reduceat(values, starts)
    stays = reduced > 0
    if repeats == "smallest_of_two":
        stays &= np.diff(starts, append=len(keys)) == 2
    return keys[starts[stays]], reduced[stays]
