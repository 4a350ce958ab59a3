"""Products with a matrix whose rows are spread over the ranks of one machine."""

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import RowPartition
from egra_dist.model.blackboard import Blackboard
from egra_dist.model.exchange import rank, traffic
from egra_dist.model.segment import free_bytes, opened
from egra_dist.model.sparse import LinearMap, SparseMatrix, SparseRows

_BYTES_OF_A_ROW = 2 * 4 * 192
"""Two files of float32, each wide enough for three modalities of 64."""


class SharedMatrix(LinearMap):
    """This rank's rows, multiplied with all rows of the dense matrix where the ranks wrote them.

    Its transpose is multiplied in the same way, by what all rows have in this rank's columns: no
    sums travel.

    Args:
        rows: Own rows ``[num_own_rows, num_columns]``.
        own_columns: ``[num_rows, num_own_columns]``.
        of_rows: Who owns which row.
        of_columns: Who owns which row of the matrix that is multiplied.
        board: Where dense matrices are seen.
    """

    def __init__(
        self,
        rows: Csr,
        own_columns: SparseMatrix,
        of_rows: RowPartition,
        of_columns: RowPartition,
        board: Blackboard,
    ) -> None:
        self._rows = SparseRows.of(rows.as_scipy(), torch.device("cpu"))
        self.own_columns = own_columns
        self._of_rows, self._of_columns = of_rows, of_columns
        self._board = board
        self.num_halo_rows = _num_of_others(rows.indices, of_columns)
        used = own_columns.rows.offsets.diff().nonzero()[:, 0]
        self._num_halo_columns = _num_of_others(used.numpy(), of_rows)

    def place(self, like: Tensor) -> Tensor:
        """See :meth:`PartitionedMatrix.place`."""
        return self._board.place(like, self._of_columns)

    def times(self, dense: Tensor) -> Tensor:
        """See :meth:`LinearMap.times`."""
        traffic.add(dense, self.num_halo_rows)
        return self._rows.times(self._board.publish(dense.detach(), self._of_columns))

    def transposed_times(self, dense: Tensor) -> Tensor:
        """See :meth:`LinearMap.transposed_times`."""
        traffic.add(dense, self._num_halo_columns)
        return self.own_columns.transposed_times(self._board.publish(dense, self._of_rows))


def board_for(num_rows: int, device: torch.device) -> Blackboard | None:
    """Where ``num_rows`` rows are seen; a collective call.

    Returns:
        None unless all ranks share this machine's memory, with room in it.
    """
    board = opened(Blackboard, device)
    if board is None:
        return None
    has_room = torch.tensor(int(free_bytes() > num_rows * _BYTES_OF_A_ROW))
    dist.all_reduce(has_room, dist.ReduceOp.MIN)
    return board if has_room else None


def _num_of_others(ids: np.ndarray, partition: RowPartition) -> int:
    """How many distinct ids other ranks own."""
    is_needed = np.zeros(partition.num_rows, dtype=bool)
    is_needed[ids] = True
    is_needed[partition.block(rank())] = False
    return int(is_needed.sum())
