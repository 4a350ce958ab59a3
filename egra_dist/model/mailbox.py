"""Rows between processes of one machine: through shared memory instead of the network's loopback.

Gloo copies what it sends four times on its way through the kernel, in threads that take the cores
from whoever computes. Here a rank writes what the others get into a file in memory, tells them so,
and they copy their parts. Two files take turns: nobody overwrites what is still being read.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.model.meeting import done_by_all
from egra_dist.model.segment import WORD, Segment, row_size

Access = Callable[[int, list[Tensor]], object]
"""Writes or reads what is for, or from, a rank: rows of each kind."""
_ALIGNMENT = 64


class Mailbox:
    """One rank's outgoing and all ranks' incoming files; opened by all ranks together.

    Args:
        name: The same on all ranks.

    Raises:
        OSError: If this rank cannot make its files.
    """

    def __init__(self, name: str) -> None:
        self._rank, self._num_ranks = dist.get_rank(), dist.get_world_size()
        self.name, self._turn = name, 0
        self.own = [Segment(self._file(self._rank, turn), is_new=True) for turn in range(2)]
        self._others: list[list[Segment]] = []

    def open(self) -> None:
        """Opens the files of the others once they have made them; ``OSError`` if it cannot."""
        self._others = [
            [Segment(self._file(other, turn), is_new=False) for turn in range(2)]
            for other in range(self._num_ranks)
        ]

    def _file(self, of: int, turn: int) -> str:
        return f"{self.name}-{of}-{turn}"

    def swap(
        self,
        likes: Sequence[Tensor],
        num_sent: Sequence[Sequence[int]],
        write: Access,
        read: Access,
    ) -> bool:
        """See :func:`egra_dist.model.exchange.swap_kinds`; a collective call.

        Returns:
            Whether rows came; on no rank if there is no memory left for the rows of one.
        """
        turn = self._turn
        self._turn = 1 - turn
        if not done_by_all(self._write(self.own[turn], likes, num_sent, write)):
            return False
        for other, segments in enumerate(self._others):
            if other != self._rank:
                shape = (self._num_ranks, 1 + len(likes))
                header = segments[turn].words(math.prod(shape)).view(shape)
                place, *counts = header[self._rank].tolist()
                if sum(counts):
                    read(other, _rows_at(segments[turn], place, likes, counts))
        return True

    def _write(
        self,
        segment: Segment,
        likes: Sequence[Tensor],
        num_sent: Sequence[Sequence[int]],
        write: Access,
    ) -> bool:
        """Writes rows, and before them where those for each rank stand; False without memory."""
        counts = [list(of_kinds) for of_kinds in zip(*num_sent, strict=True)]
        counts[self._rank] = [0] * len(likes)
        sizes = [sum(map(_size, likes, of_kinds)) for of_kinds in counts]
        start = _aligned(WORD * self._num_ranks * (1 + len(likes)))
        places = [start + sum(sizes[:other]) for other in range(self._num_ranks)]
        try:
            segment.grow(start + sum(sizes))
        except OSError:
            return False
        header = torch.tensor([[p, *c] for p, c in zip(places, counts, strict=True)])
        segment.words(header.numel()).copy_(header.flatten())
        for other, (place, of_kinds) in enumerate(zip(places, counts, strict=True)):
            if sum(of_kinds):
                write(other, _rows_at(segment, place, likes, of_kinds))
        return True


def _rows_at(
    segment: Segment, place: int, likes: Sequence[Tensor], counts: Sequence[int]
) -> list[Tensor]:
    """Rows of each kind, one kind after the other."""
    rows = []
    for like, count in zip(likes, counts, strict=True):
        rows.append(segment.rows(place, like, count))
        place += _size(like, count)
    return rows


def _size(like: Tensor, count: int) -> int:
    """Bytes that rows of a kind take."""
    return _aligned(count * row_size(like))


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
