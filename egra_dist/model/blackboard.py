"""A dense matrix whose rows are spread over the ranks of one machine, in sight of all of them.

Where a product needs most rows of the others, as with an interaction graph over few ranks, sending
and receiving them costs as much as the product. Here each rank writes its own rows once, into its
place in a file in memory, and all read them there. Two files take turns: a rank that writes one of
them again has met all others after they were done with it.
"""

import torch.distributed as dist
from torch import Tensor

from egra_dist.graph.partition import RowPartition
from egra_dist.model.meeting import done_by_all
from egra_dist.model.segment import Segment, row_size


class Blackboard:
    """Two files that all ranks write; opened by all of them together.

    Args:
        name: The same on all ranks.

    Raises:
        OSError: If the first rank cannot make the files.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.own: list[Segment] = []
        self._names = [f"{name}-board-{turn}" for turn in range(2)]
        self._sheets: list[Segment] = []
        self._turn = 0
        if dist.get_rank() == 0:
            self.own = [Segment(name, is_new=True) for name in self._names]

    def open(self) -> None:
        """Opens the files once they are made; ``OSError`` if it cannot."""
        self._sheets = self.own or [Segment(name, is_new=False) for name in self._names]

    def publish(self, own: Tensor, rows: RowPartition) -> Tensor:
        """Everybody's rows; a collective call.

        Args:
            own: This rank's rows, ``[num_own_rows, dim]``.
            rows: Who has which row.

        Returns:
            ``[num_rows, dim]``, to be read before the next call but one, and not to be written.
        """
        sheet = self._sheets[self._turn]
        self._turn = 1 - self._turn
        if not done_by_all(_write(sheet, own, rows)):
            return _gather(own, rows)
        return sheet.rows(0, own, rows.num_rows)


def _write(sheet: Segment, own: Tensor, rows: RowPartition) -> bool:
    """Writes this rank's rows; False if there is no memory for those of all."""
    try:
        sheet.grow(rows.num_rows * row_size(own))
    except OSError:
        return False
    sheet.rows(0, own, rows.num_rows)[rows.block(dist.get_rank())] = own
    return True


def _gather(own: Tensor, rows: RowPartition) -> Tensor:
    """Everybody's rows by the network: there is no memory left for the files."""
    num_ranks = dist.get_world_size()
    sizes = [rows.size(rank) for rank in range(num_ranks)]
    everything = own.new_empty(rows.num_rows, *own.shape[1:])
    dist.all_to_all_single(everything, own.repeat(num_ranks, 1), sizes, [len(own)] * num_ranks)
    return everything
