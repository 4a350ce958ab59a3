"""Sparse matrices of dense ones."""

import numpy as np

from egra_dist.graph.csr import Csr


def csr_of(dense: np.ndarray, has_values: bool = True) -> Csr:
    """The entries that are not 0; all 1 without values."""
    rows, columns = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    values = dense[rows, columns].astype(np.float32) if has_values else None
    return Csr(indptr.astype(np.int64), columns.astype(np.int32), values, dense.shape[1])
