"""A dense matrix whose rows are spread over the ranks of one machine, in sight of all of them.

Where a product needs most rows of the others, as with an interaction graph over few ranks, sending
and receiving them costs as much as the product. Here each rank writes its own rows once, into its
place in a file in memory, and all read them there. Two files take turns: a rank that writes one of
them again has met all others after they were done with it. A matrix that stays, as the tables do,
has a file of its own and is never written again to be seen.
"""

from functools import partial

import torch.distributed as dist
from torch import Tensor

from egra_dist.graph.partition import RowPartition
from egra_dist.model.large_pages import LARGE_PAGE
from egra_dist.model.meeting import done_by_all
from egra_dist.model.segment import Segment, has_room_for, open_together, row_size


class Sheet:
    """A file in memory that the first rank makes; opened by all ranks together.

    Args:
        name: The same on all ranks.
        size: Bytes.

    Raises:
        OSError: If the first rank cannot make it, or should not, for want of room.
    """

    def __init__(self, name: str, size: int = LARGE_PAGE) -> None:
        self._name = name
        self.own: list[Segment] = []
        if dist.get_rank() == 0:
            if not has_room_for(size):
                raise OSError("no room for a matrix that all see")
            self.own.append(Segment(name, is_new=True, size=size))

    def open(self) -> None:
        """Opens the file once it is made; ``OSError`` if it cannot."""
        self._segment = self.own[0] if self.own else Segment(self._name, is_new=False)

    def rows(self, like: Tensor, rows: RowPartition) -> Tensor:
        """A matrix of rows like some, ``[num_rows, dim]``; ``OSError`` if it does not fit."""
        self._segment.grow(rows.num_rows * row_size(like))
        return self._segment.rows(0, like, rows.num_rows)


class Blackboard:
    """Two files that all ranks write; opened by all of them together.

    Args:
        name: The same on all ranks.

    Raises:
        OSError: If the first rank cannot make the files.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._sheets = [Sheet(f"{name}-board-{turn}") for turn in range(2)]
        self.own = [segment for sheet in self._sheets for segment in sheet.own]
        self._turn = 0
        self._kept: list[Tensor] = []

    def open(self) -> None:
        """Opens the files once they are made; ``OSError`` if it cannot."""
        for sheet in self._sheets:
            sheet.open()

    def keep(self, like: Tensor, rows: RowPartition) -> Tensor | None:
        """A matrix that stays: own rows are seen wherever they are published; a collective call.

        Args:
            like: Of its type and width, ``[any, dim]``.
            rows: Who has which row.

        Returns:
            ``[num_rows, dim]``, of which each rank may write its own rows until it publishes them,
            and again once all others have met it; None if there is no room.
        """
        sheet = open_together(partial(Sheet, size=rows.num_rows * row_size(like)))
        if sheet is None:
            return None
        self._kept.append(sheet.rows(like, rows))
        return self._kept[-1]

    def place(self, like: Tensor, rows: RowPartition) -> Tensor:
        """Where own rows can be written that are published next: they need no copy then.

        Args:
            like: Of their type and width, ``[any, dim]``.
            rows: Who has which row.

        Returns:
            ``[num_own_rows, dim]``.
        """
        try:
            return _own(self._sheets[self._turn].rows(like, rows), rows)
        except OSError:
            return like.new_empty(rows.size(dist.get_rank()), *like.shape[1:])

    def publish(self, own: Tensor, rows: RowPartition) -> Tensor:
        """Everybody's rows; a collective call.

        Args:
            own: This rank's rows, ``[num_own_rows, dim]``.
            rows: Who has which row.

        Returns:
            ``[num_rows, dim]``, to be read before the next call but one, and not to be written.
        """
        for kept in self._kept:
            if len(kept) == rows.num_rows and _is_part(own, kept, rows):
                done_by_all(True)
                return kept
        sheet = self._sheets[self._turn]
        self._turn = 1 - self._turn
        if not done_by_all(_write(sheet, own, rows)):
            return _gather(own, rows)
        return sheet.rows(own, rows)


def _own(everything: Tensor, rows: RowPartition) -> Tensor:
    return everything[rows.block(dist.get_rank())]


def _is_part(own: Tensor, everything: Tensor, rows: RowPartition) -> bool:
    """Whether rows lie where this rank's rows of a matrix do, be they none."""
    place = _own(everything, rows)
    return (
        own.untyped_storage().data_ptr() == place.untyped_storage().data_ptr()
        and own.storage_offset() == place.storage_offset()
        and own.shape == place.shape
        and own.dtype == place.dtype
    )


def _write(sheet: Sheet, own: Tensor, rows: RowPartition) -> bool:
    """Writes this rank's rows; False if there is no memory for those of all."""
    try:
        everything = sheet.rows(own, rows)
    except OSError:
        return False
    if not _is_part(own, everything, rows):
        _own(everything, rows).copy_(own)
    return True


def _gather(own: Tensor, rows: RowPartition) -> Tensor:
    """Everybody's rows by the network: there is no memory left for the files."""
    num_ranks = dist.get_world_size()
    sizes = [rows.size(rank) for rank in range(num_ranks)]
    everything = own.new_empty(rows.num_rows, *own.shape[1:])
    dist.all_to_all_single(everything, own.repeat(num_ranks, 1), sizes, [len(own)] * num_ranks)
    return everything
