"""The behaviour graph: who interacted with what, with item-item edges merged in.

``A = [[0, R], [R^T, beta * A_II]]`` over users and items, normalised symmetrically with the degrees
of the merged graph: ``N(A) = D^-1/2 A D^-1/2`` (METHOD, stages 1 to 3). On disk they are made block
of rows by block of rows; in memory only what an epoch draws anew.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse

from egra_dist.catalog.catalog import Catalog, Split
from egra_dist.errors import UserError
from egra_dist.graph.assembly import write_rows
from egra_dist.graph.buckets import Map, blocks_of, bucket
from egra_dist.graph.csr import Csr, inverse_roots, starts_of
from egra_dist.graph.edges import InteractionEdges
from egra_dist.graph.partition import RowPartition, take_rows

_MOST_NODES = 2**31 - 1


def write_behavior(catalog: Catalog, folder: Path, work: Path, run: Map = map) -> int:
    """Writes ``plain``, ``N(A)`` without item-item edges, and ``training``, ``R``.

    Args:
        catalog: Whose training interactions; one that occurs twice counts once.
        folder: Where both go.
        work: Folder for what is written in between.
        run: Who does the tasks.

    Returns:
        Number of interactions.

    Raises:
        UserError: If there are more users and items than 32-bit integers can tell apart.
    """
    num_nodes = catalog.num_users + catalog.num_items
    if num_nodes > _MOST_NODES:
        raise UserError(f"{catalog.path}: {num_nodes:,} users and items, at most {_MOST_NODES:,}")
    edges = InteractionEdges.of(catalog)
    adjacency = bucket(edges, (num_nodes, num_nodes), work / "edges", run)
    write_rows(adjacency, folder / "plain", work / "plain", run, normalized=True)
    training = UserItemRows.of(folder / "plain", catalog.num_users)
    return write_rows(training, folder / "training", work / "training", run)


def write_merged_rows(
    plain: Path, items: Path, beta: float, folder: Path, work: Path, run: Map = map
) -> int:
    """Writes ``N(A)`` with item-item edges.

    Args:
        plain: ``N(A)`` without them.
        items: ``A_II``.
        beta: Scale of the item-item block.
        folder: Where it goes.
        work: Folder for what is written in between.
        run: Who does the tasks.

    Returns:
        Number of entries.
    """
    return write_rows(MergedRows.of(plain, items, beta), folder, work, run, normalized=True)


@dataclass(frozen=True)
class UserItemRows:
    """``R``, read off the rows of the users in the graph without item-item edges.

    Attributes:
        plain: That graph.
        blocks: Blocks of users.
        num_columns: Number of items.
    """

    plain: Path
    blocks: RowPartition
    num_columns: int

    @classmethod
    def of(cls, plain: Path, num_users: int) -> "UserItemRows":
        """Users in blocks of about as many interactions each."""
        graph = Csr.load(plain)
        rows = Csr(graph.indptr[: num_users + 1], graph.indices, None, graph.num_columns)
        return cls(plain, blocks_of([rows], num_users), graph.num_columns - num_users)

    def read(self, number: int) -> Csr:
        """See :class:`egra_dist.graph.assembly.RowSource`."""
        rows = take_rows(Csr.load(self.plain), [self.blocks.block(number)])
        items = rows.indices - np.int32(self.blocks.num_rows)
        return Csr(rows.indptr, items, None, self.num_columns)


@dataclass(frozen=True)
class MergedRows:
    """``A``: the rows of the graph without item-item edges, those of ``beta * A_II`` beside them.

    Attributes:
        plain: ``N(A)`` without item-item edges; of it only counts which entries there are.
        items: ``A_II``.
        beta: Scale of the item-item block.
        blocks: Blocks of nodes.
    """

    plain: Path
    items: Path
    beta: float
    blocks: RowPartition

    @classmethod
    def of(cls, plain: Path, items: Path, beta: float) -> "MergedRows":
        """Nodes in blocks of about as many entries each."""
        matrices = [Csr.load(plain), Csr.load(items)]
        return cls(plain, items, beta, blocks_of(matrices, matrices[0].num_rows))

    @property
    def num_columns(self) -> int:
        """Number of nodes."""
        return self.blocks.num_rows

    def read(self, number: int) -> Csr:
        """See :class:`egra_dist.graph.assembly.RowSource`."""
        block = self.blocks.block(number)
        rows = take_rows(Csr.load(self.plain), [block])
        interactions = Csr(rows.indptr, rows.indices, np.ones(rows.num_entries, np.float32), 0)
        items = Csr.load(self.items)
        num_users = self.num_columns - items.num_rows
        first, last = max(block.start, num_users), max(block.stop, num_users)
        own = take_rows(items, [slice(first - num_users, last - num_users)])
        values = np.ones(own.num_entries, np.float32) if own.values is None else own.values
        values = values * np.float32(self.beta)
        kept = values > 0
        starts = starts_of(kept.astype(np.int64))[own.indptr]
        # The rows of users come first and have no item-item edges.
        num_own_users = min(first, block.stop) - block.start
        indptr = np.concatenate([np.zeros(num_own_users, np.int64), starts])
        columns = own.indices[kept] + np.int32(num_users)
        return _beside(interactions, Csr(indptr, columns, values[kept], 0), self.num_columns)


def _beside(left: Csr, right: Csr, num_columns: int) -> Csr:
    """The entries of two matrices, in each row those of ``left`` first."""
    counts = np.diff(left.indptr) + np.diff(right.indptr)
    of_left = np.arange(left.num_entries) + np.repeat(right.indptr[:-1], np.diff(left.indptr))
    of_right = np.arange(right.num_entries) + np.repeat(left.indptr[1:], np.diff(right.indptr))
    indices = np.empty(left.num_entries + right.num_entries, np.int32)
    values = np.empty(len(indices), np.float32)
    indices[of_left], indices[of_right] = left.indices, right.indices
    values[of_left], values[of_right] = left.values, right.values
    return Csr(starts_of(counts), indices, values, num_columns)


def training_matrix(catalog: Catalog, split: Split = "train") -> Csr:
    """The binary matrix ``R [num_users, num_items]`` of the interactions of a split, in memory."""
    users, items = catalog.interactions(split)
    counts = np.bincount(users, minlength=catalog.num_users)
    return Csr(starts_of(counts), items, None, catalog.num_items)


def merge(training: Csr, items: Csr | None, beta: float) -> Csr:
    """The merged, normalised behaviour graph ``N(A)``, in memory.

    Args:
        training: ``R [num_users, num_items]``.
        items: ``A_II [num_items, num_items]``, or None for the plain user-item graph.
        beta: Scale of the item-item block.

    Returns:
        ``[num_users + num_items, num_users + num_items]``.
    """
    interactions = training.as_scipy()
    block = items.as_scipy() * np.float32(beta) if items is not None and beta > 0 else None
    adjacency = scipy.sparse.block_array([[None, interactions], [interactions.T, block]])
    return normalize(Csr.from_scipy(adjacency))


def sample_edges(training: Csr, share: float, random: np.random.Generator) -> Csr:
    """Keeps a share of the interactions, those of rare users and items sooner.

    An edge is drawn, without replacement, in proportion to ``1 / sqrt(d_u d_i)`` (FREEDOM, Zhou &
    Shen 2023, equation 9).

    Args:
        training: ``R [num_users, num_items]``.
        share: Of the edges, in (0, 1].
        random: Where the draws come from.

    Returns:
        ``[num_users, num_items]``.
    """
    users = np.repeat(np.arange(training.num_rows), np.diff(training.indptr))
    of_users = np.diff(training.indptr)[users]
    of_items = np.bincount(training.indices, minlength=training.num_columns)[training.indices]
    # The smallest of exponential draws with these rates are a sample with these weights.
    arrivals = random.exponential(size=len(users)) * np.sqrt(of_users * of_items)
    kept = np.zeros(len(users), dtype=bool)
    kept[np.argsort(arrivals)[: round(share * len(users))]] = True
    counts = np.bincount(users[kept], minlength=training.num_rows)
    return Csr(starts_of(counts), training.indices[kept], None, training.num_columns)


def normalize(matrix: Csr) -> Csr:
    """``D^-1/2 A D^-1/2`` of a square matrix, with its row sums on both sides, in memory."""
    roots = inverse_roots(matrix.row_degrees())
    return matrix.scaled(roots, roots)
