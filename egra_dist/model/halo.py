"""Products with a matrix whose rows are spread over ranks, by way of the rows that a rank lacks.

Each rank holds the rows it owns. Before a product it receives the few rows of the other ranks that
its own rows point at (the *halo*); which ones is planned once.
"""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import RowPartition
from egra_dist.model.exchange import exchange, rank, swap
from egra_dist.model.sparse import LinearMap, SparseMatrix


class HaloMatrix(LinearMap):
    """This rank's rows, multiplied with own rows of the dense matrix and the halo below them.

    Args:
        rows: Own rows ``[num_own_rows, num_columns]``.
        columns: Who owns which row of the matrix that is multiplied.
        device: Where the products run.
    """

    def __init__(self, rows: Csr, columns: RowPartition, device: torch.device) -> None:
        own = columns.block(rank())
        is_halo = (rows.indices < own.start) | (rows.indices >= own.stop)
        halo = np.unique(rows.indices[is_halo])
        local = np.where(
            is_halo,
            own.stop - own.start + np.searchsorted(halo, rows.indices),
            rows.indices - own.start,
        ).astype(np.int32)
        num_columns = own.stop - own.start + len(halo)
        own_and_halo = Csr(rows.indptr, local, rows.values, num_columns)
        self._product = SparseMatrix(own_and_halo, device)
        self._halo = _HaloPlan(halo, columns, device)

    @property
    def num_halo_rows(self) -> int:
        """Rows received from other ranks for each product."""
        return self._halo.num_rows

    def times(self, dense: Tensor) -> Tensor:
        """See :meth:`LinearMap.times`."""
        return self._product.times(self._halo.fetch(dense.detach()))

    def transposed_times(self, dense: Tensor) -> Tensor:
        """See :meth:`LinearMap.transposed_times`."""
        return self._halo.add_up(self._product.transposed_times(dense))


class _HaloPlan:
    """Which rows to send to whom so that everybody has its halo."""

    def __init__(
        self, halo: np.ndarray[Any, Any], columns: RowPartition, device: torch.device
    ) -> None:
        self.num_rows = len(halo)
        owners = columns.owner_of(halo)
        self._num_received = np.bincount(owners, minlength=columns.num_ranks).tolist()
        counts = torch.tensor(self._num_received, device=device)
        asked = torch.empty_like(counts)
        dist.all_to_all_single(asked, counts)
        self._num_sent = asked.tolist()
        wanted = torch.as_tensor(halo.astype(np.int64), device=device)
        wanted = exchange(wanted, self._num_received, self._num_sent)
        self._sent = wanted - columns.block(rank()).start

    def fetch(self, dense: Tensor) -> Tensor:
        """Own rows and below them the halo: ``[num_own + num_halo, dim]``."""
        extended = dense.new_empty(len(dense) + self.num_rows, *dense.shape[1:])
        own, halo = extended.split([len(dense), self.num_rows])
        own.copy_(dense)
        incoming, wanted = halo.split(self._num_received), self._sent.split(self._num_sent)
        swap(
            dense,
            self._num_sent,
            self._num_received,
            write=lambda other, sent: torch.index_select(dense, 0, wanted[other], out=sent),
            read=lambda other, came: incoming[other].copy_(came),
        )
        return extended

    def add_up(self, extended: Tensor) -> Tensor:
        """Own rows with what the others have for them: the transpose of :meth:`fetch`."""
        own, halo = extended.split([len(extended) - self.num_rows, self.num_rows])
        total, outgoing = own.clone(), halo.split(self._num_received)
        places = self._sent.split(self._num_sent)
        swap(
            extended,
            self._num_received,
            self._num_sent,
            write=lambda other, sent: sent.copy_(outgoing[other]),
            read=lambda other, came: total.index_add_(0, places[other], came),
        )
        return total
