"""Rows between processes of one machine: through shared memory instead of the network's loopback.

Gloo copies what it sends four times on its way through the kernel, in threads that take the cores
from whoever computes. Here a rank writes what the others get into a file in memory, tells them so,
and they copy their parts. Two files take turns: nobody overwrites what is still being read.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.model.segment import WORD, Segment, done_by_all, row_size

Access = Callable[[int, Tensor], object]
"""Writes or reads the rows of a rank."""


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
        like: Tensor,
        num_sent: Sequence[int],
        num_received: Sequence[int],
        write: Access,
        read: Access,
    ) -> bool:
        """See :func:`egra_dist.model.exchange.swap`; a collective call.

        Returns:
            Whether rows came; on no rank if there is no memory left for the rows of one.
        """
        turn = self._turn
        self._turn = 1 - turn
        if not done_by_all(self._write(self.own[turn], like, num_sent, write)):
            return False
        for other, count in enumerate(num_received):
            if other != self._rank and count:
                segment = self._others[other][turn]
                place = int(segment.words(self._num_ranks)[self._rank])
                read(other, segment.rows(place, like, count))
        return True

    def _write(
        self, segment: Segment, like: Tensor, num_sent: Sequence[int], write: Access
    ) -> bool:
        """Writes rows, and before them where those for each rank stand; False without memory."""
        counts = [0 if other == self._rank else count for other, count in enumerate(num_sent)]
        sizes = [count * row_size(like) for count in counts]
        header = WORD * self._num_ranks
        try:
            segment.grow(header + sum(sizes))
        except OSError:
            return False
        places = [header + sum(sizes[:other]) for other in range(self._num_ranks)]
        segment.words(self._num_ranks).copy_(torch.tensor(places))
        for other, (place, count) in enumerate(zip(places, counts, strict=True)):
            if count:
                write(other, segment.rows(place, like, count))
        return True
