"""Shallow yardsticks: closed-form item-item models that any trained model must beat.

Both hold an items x items matrix and so suit catalogues of some ten thousand items.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.errors import UserError
from egra_dist.graph.csr import Csr

MAX_ITEMS = 30_000
"""EASE's dense float32 matrix of this many items takes 3.6 GB, and its inversion twice that."""


@dataclass(frozen=True)
class Ease:
    """EASE^R (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019).

    Attributes:
        training: User x item matrix ``R``.
        weights: ``B``, ``float32 [num_items, num_items]`` with a zero diagonal; scores are ``R B``.
    """

    training: scipy.sparse.csr_array
    weights: Tensor

    @classmethod
    def fit(cls, training: Csr, regularization: float, max_items: int = MAX_ITEMS) -> "Ease":
        """Solves equation 8 of the paper, ``B = I - P diag(P)^-1`` with ``P = (R'R + lambda)^-1``.

        Args:
            training: Binary user x item matrix.
            regularization: ``lambda``; some tens to thousands, growing with the interactions.
            max_items: Largest catalogue to try.

        Raises:
            UserError: If there are more items, or ``lambda`` is not positive.
        """
        if training.num_columns > max_items:
            raise UserError(
                f"EASE: {training.num_columns:,} items; it inverts an items x items matrix, "
                f"so at most {max_items:,} are allowed"
            )
        if regularization <= 0:
            raise UserError(f"EASE: regularization {regularization}: must be above 0")
        matrix = training.as_scipy()
        gram = torch.from_numpy((matrix.T @ matrix).toarray())
        gram.diagonal().add_(regularization)
        weights = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        weights /= -weights.diagonal().clone()
        return cls(matrix, weights.fill_diagonal_(0))

    def score_users(self, users: NDArray[np.int64]) -> Tensor:
        """Scores ``float32 [len(users), num_items]``."""
        return torch.from_numpy(self.training[users] @ self.weights.numpy())


@dataclass(frozen=True)
class ItemKnn:
    """Item-based collaborative filtering with cosine similarity and shrinkage.

    Attributes:
        training: User x item matrix ``R``.
        similarity: ``S``, sparse ``[num_items, num_items]``; column ``i`` holds the neighbours of
            item ``i``, and scores are ``R S``.
    """

    training: scipy.sparse.csr_array
    similarity: scipy.sparse.csr_array

    @classmethod
    def fit(
        cls, training: Csr, k: int = 100, shrinkage: float = 10.0, block_size: int = 1024
    ) -> "ItemKnn":
        """Finds each item's ``k`` nearest items by ``|i and j| / (sqrt(|i| |j|) + shrinkage)``.

        As configured in Ferrari Dacrema et al., "Are We Really Making Much Progress?", RecSys 2019.
        Neighbours that tie with the k-th are kept.

        Args:
            training: Binary user x item matrix.
            k: Neighbours of an item.
            shrinkage: Lowers the similarity of items with few interactions.
            block_size: Items whose similarities to all others are held at once.
        """
        matrix = training.as_scipy()
        norms = np.sqrt(matrix.sum(axis=0))
        by_item = matrix.T.tocsr()
        rows = []
        for begin in range(0, matrix.shape[1], block_size):
            block = (by_item[begin : begin + block_size] @ matrix).tocoo()
            items, others = block.row + begin, block.col
            values = block.data / (norms[items] * norms[others] + shrinkage)
            values[items == others] = 0
            similar = scipy.sparse.csr_array((values, (block.row, others)), shape=block.shape)
            rows.append(_largest(similar, k))
        return cls(matrix, scipy.sparse.vstack(rows).T.tocsr())

    def score_users(self, users: NDArray[np.int64]) -> Tensor:
        """Scores ``float32 [len(users), num_items]``."""
        scores = (self.training[users] @ self.similarity).toarray()
        return torch.from_numpy(scores.astype(np.float32))


def _largest(matrix: scipy.sparse.csr_array, k: int) -> scipy.sparse.csr_array:
    """Keeps the positive values of each row that are at least its k-th largest."""
    dense = torch.from_numpy(matrix.toarray())
    kth = dense.topk(min(k, dense.shape[1]), dim=1).values[:, -1:]
    return scipy.sparse.csr_array(dense.masked_fill_(dense < kth, 0).numpy())
