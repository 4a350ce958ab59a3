"""The graphs that training uses, made by scipy in memory: what those on disk are compared with."""

import numpy as np
import scipy.sparse

from egra_dist.graph.behavior import merge
from egra_dist.graph.csr import Csr, inverse_roots


def to_csr(matrix):
    rows = scipy.sparse.csr_array(matrix)
    rows.eliminate_zeros()
    rows.sort_indices()
    indptr, indices = rows.indptr.astype(np.int64), rows.indices.astype(np.int32)
    return Csr(indptr, indices, rows.data, rows.shape[1])


def training_matrix(users, items, shape):
    matrix = scipy.sparse.csr_array((np.ones(len(users), np.float32), (users, items)), shape=shape)
    matrix.data[:] = 1  # what occurred twice
    return to_csr(matrix)


def item_adjacency(neighbors, scores, direction="directed", weight="binary", loops=None):
    rows, slots = np.nonzero(neighbors >= 0)
    columns = neighbors[rows, slots]
    found = np.ones(len(rows), dtype=np.float32)
    if weight == "cosine":
        found = np.maximum(scores[rows, slots], 0).astype(np.float32)
    matrix = scipy.sparse.csr_array((found, (rows, columns)), shape=(len(neighbors),) * 2)
    if direction == "union":
        matrix = matrix.maximum(matrix.T)
    elif direction == "mutual":
        matrix = matrix.minimum(matrix.T)
    if loops is not None:
        matrix = matrix + scipy.sparse.diags_array(loops.astype(np.float32))
    return to_csr(matrix)


def merged(training, items, beta):
    return merge(training, items, beta)


def normalized(matrix):
    roots = inverse_roots(matrix.row_degrees())
    rows = np.repeat(np.arange(matrix.num_rows), np.diff(matrix.indptr))
    values = roots[rows] * roots[matrix.indices] * matrix.values
    return Csr(matrix.indptr, matrix.indices, values.astype(np.float32), matrix.num_columns)
