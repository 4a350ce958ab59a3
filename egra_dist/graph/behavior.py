"""The behaviour graph: who interacted with what, with item-item edges merged in.

``A = [[0, R], [R^T, beta * A_II]]`` over users and items, normalised symmetrically with the degrees
of the merged graph: ``N(A) = D^-1/2 A D^-1/2`` (METHOD, stages 1 to 3).
"""

from typing import Literal

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog, Split
from egra_dist.graph.csr import Csr

Direction = Literal["directed", "union", "mutual"]


def training_matrix(catalog: Catalog, split: Split = "train") -> Csr:
    """The binary matrix ``R [num_users, num_items]`` of the interactions of a split."""
    users, items = catalog.interactions(split)
    degrees = np.bincount(users, minlength=catalog.num_users)
    indptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)
    return Csr(indptr, items, None, catalog.num_items)


def item_adjacency(
    neighbors: NDArray[np.int32],
    scores: NDArray[np.float32],
    direction: Direction,
    weight: Literal["binary", "cosine"],
) -> Csr:
    """The item-item matrix ``A_II`` of a kNN graph.

    Args:
        neighbors: ``[num_items, k]``, -1 where there is none.
        scores: ``[num_items, k]`` cosine similarities.
        direction: Edges as found (``directed``), with their reverse added (``union``), or only
            those found from both ends (``mutual``).
        weight: Whether an edge weighs 1 or its cosine (never below 0).

    Returns:
        ``[num_items, num_items]`` without self-loops.
    """
    num_items = len(neighbors)
    rows, slots = np.nonzero(neighbors >= 0)
    columns = neighbors[rows, slots]
    found = np.ones(len(rows), dtype=np.float32)
    if weight == "cosine":
        found = np.maximum(scores[rows, slots], 0).astype(np.float32)
    matrix = scipy.sparse.csr_array((found, (rows, columns)), shape=(num_items, num_items))
    if direction == "union":
        matrix = matrix.maximum(matrix.T)
    elif direction == "mutual":
        matrix = matrix.minimum(matrix.T)
    return _from_scipy(matrix)


def merge(training: Csr, items: Csr | None, beta: float) -> Csr:
    """The merged, normalised behaviour graph ``N(A)``.

    Args:
        training: ``R [num_users, num_items]``.
        items: ``A_II [num_items, num_items]``, or None for the plain user-item graph.
        beta: Scale of the item-item block.

    Returns:
        ``[num_users + num_items, num_users + num_items]``.
    """
    interactions = _to_scipy(training)
    block = _to_scipy(items) * np.float32(beta) if items is not None and beta > 0 else None
    adjacency = scipy.sparse.block_array([[None, interactions], [interactions.T, block]])
    return normalize(_from_scipy(adjacency))


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
    degrees = np.bincount(users[kept], minlength=training.num_rows)
    indptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)
    return Csr(indptr, training.indices[kept], None, training.num_columns)


def normalize(matrix: Csr) -> Csr:
    """``D^-1/2 A D^-1/2`` of a square matrix, with its row sums on both sides."""
    degrees = matrix.row_degrees()
    inverse_root = np.zeros_like(degrees)
    np.power(degrees, -0.5, where=degrees > 0, out=inverse_root)
    rows = np.repeat(np.arange(matrix.num_rows), np.diff(matrix.indptr))
    values = inverse_root[rows] * inverse_root[matrix.indices]
    if matrix.values is not None:
        values *= matrix.values
    return Csr(matrix.indptr, matrix.indices, values.astype(np.float32), matrix.num_columns)


def _to_scipy(matrix: Csr) -> scipy.sparse.csr_array:
    values = matrix.values
    if values is None:
        values = np.ones(matrix.num_entries, dtype=np.float32)
    shape = (matrix.num_rows, matrix.num_columns)
    return scipy.sparse.csr_array((values, matrix.indices, matrix.indptr), shape=shape)


def _from_scipy(matrix: scipy.sparse.sparray) -> Csr:
    rows = scipy.sparse.csr_array(matrix)
    rows.eliminate_zeros()
    rows.sort_indices()
    return Csr(
        indptr=rows.indptr.astype(np.int64),
        indices=rows.indices.astype(np.int32),
        values=rows.data.astype(np.float32),
        num_columns=rows.shape[1],
    )
