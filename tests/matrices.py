"""Sparse matrices of dense ones, and back."""

import numpy as np

from egra_dist.graph.csr import Csr


def csr_of(dense: np.ndarray, has_values: bool = True) -> Csr:
    """The entries that are not 0; all 1 without values."""
    rows, columns = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    values = dense[rows, columns].astype(np.float32) if has_values else None
    return Csr(indptr.astype(np.int64), columns.astype(np.int32), values, dense.shape[1])


def dense_of(matrix: Csr) -> np.ndarray:
    """All entries, ``float64 [num_rows, num_columns]``."""
    dense = np.zeros((matrix.num_rows, matrix.num_columns))
    rows = np.repeat(np.arange(matrix.num_rows), np.diff(matrix.indptr))
    dense[rows, matrix.indices] = 1 if matrix.values is None else matrix.values
    return dense
