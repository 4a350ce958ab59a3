"""Rows between processes of one machine: through shared memory instead of the network's loopback.

Gloo copies what it sends four times on its way through the kernel, in threads that take the cores
from whoever computes. Here a rank writes what the others get into a file in memory, tells them so,
and they copy their parts. Two files take turns: nobody overwrites what is still being read.
"""

import contextlib
import math
import os
import uuid
from collections.abc import Callable, Sequence
from mmap import mmap
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

Access = Callable[[int, Tensor], object]
"""Writes or reads the rows of a rank."""

_FOLDER = Path("/dev/shm")
_FIRST_SIZE = 1 << 20
_WORD = 8
_WRITTEN, _REFUSED = 0, 1


class Mailbox:
    """One rank's outgoing and all ranks' incoming files; made by all ranks together.

    Raises:
        OSError: If this rank cannot make its files or open those of the others.
    """

    def __init__(self, name: str) -> None:
        self._rank, self._num_ranks = dist.get_rank(), dist.get_world_size()
        self.name, self._turn = f"egra-{name}", 0
        self._own = [_Segment(_path(name, self._rank, turn), is_new=True) for turn in range(2)]
        for segment in self._own:
            segment.grow(_FIRST_SIZE)
        self._others: list[list[_Segment]] = []

    def open(self, name: str) -> None:
        """Opens the files of the others once they have made them."""
        self._others = [
            [_Segment(_path(name, other, turn), is_new=False) for turn in range(2)]
            for other in range(self._num_ranks)
        ]

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
        self._write(self._own[turn], like, num_sent, write)
        self._turn = 1 - turn
        dist.barrier()
        if any(others[turn].is_refused for others in self._others):
            return False
        for other, count in enumerate(num_received):
            if other != self._rank and count:
                read(other, self._others[other][turn].received(self._rank, like, count))
        return True

    def _write(
        self, segment: "_Segment", like: Tensor, num_sent: Sequence[int], write: Access
    ) -> None:
        counts = [0 if other == self._rank else count for other, count in enumerate(num_sent)]
        sizes = [count * row_size(like) for count in counts]
        header = _WORD * (1 + self._num_ranks)
        try:
            segment.grow(header + sum(sizes))
        except OSError:
            segment.words(1).fill_(_REFUSED)
            return
        places = [header + sum(sizes[:other]) for other in range(self._num_ranks)]
        segment.words(1 + self._num_ranks).copy_(torch.tensor([_WRITTEN, *places]))
        for other, (place, count) in enumerate(zip(places, counts, strict=True)):
            if count:
                write(other, segment.rows(place, like, count))


class _Segment:
    """A file in memory that one rank writes and others read."""

    def __init__(self, path: Path, is_new: bool) -> None:
        flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if is_new else 0)
        self._file = os.open(path, flags, 0o600)
        self._map: mmap | None = None
        self._size = 0

    def grow(self, size: int) -> None:
        """Makes it at least so large."""
        if size <= self._size:
            return
        size = max(size + size // 4, _FIRST_SIZE)
        os.posix_fallocate(self._file, 0, size)
        self._remap(size)

    @property
    def is_refused(self) -> bool:
        """Whether there was no room for what should stand here."""
        if self._size == 0:
            self._remap(os.fstat(self._file).st_size)
        return int(self.words(1)[0]) == _REFUSED

    def received(self, reader: int, like: Tensor, count: int) -> Tensor:
        """The rows that were written for a rank, ``[count, ...]``."""
        place = int(self.words(reader + 2)[reader + 1])
        if place + count * row_size(like) > self._size:
            self._remap(os.fstat(self._file).st_size)
        return self.rows(place, like, count)

    def words(self, count: int) -> Tensor:
        """The first numbers, ``int64 [count]``."""
        return torch.frombuffer(self._map, dtype=torch.int64, count=count)

    def rows(self, place: int, like: Tensor, count: int) -> Tensor:
        """Rows at a place, ``[count, ...]`` as those of ``like``."""
        shape = (count, *like.shape[1:])
        numbers = torch.frombuffer(
            self._map, dtype=like.dtype, count=math.prod(shape), offset=place
        )
        return numbers.view(shape)

    def _remap(self, size: int) -> None:
        self._map, self._size = mmap(self._file, size), size


def open_mailbox() -> Mailbox | None:
    """A mailbox of all ranks; None if they do not share a machine's memory. A collective call."""
    names = [uuid.uuid4().hex]
    dist.broadcast_object_list(names, src=0)
    mailbox = None
    with contextlib.suppress(OSError):
        mailbox = Mailbox(names[0])
    dist.barrier()
    is_open = mailbox is not None
    if mailbox is not None:
        try:
            mailbox.open(names[0])
        except OSError:
            is_open = False
    everywhere = torch.tensor(int(is_open))
    dist.all_reduce(everywhere, dist.ReduceOp.MIN)
    # Without a name the files end with the last process that has them open, however it ends.
    for turn in range(2):
        _path(names[0], dist.get_rank(), turn).unlink(missing_ok=True)
    return mailbox if everywhere else None


def _path(name: str, rank: int, turn: int) -> Path:
    return _FOLDER / f"egra-{name}-{rank}-{turn}"


def row_size(like: Tensor) -> int:
    """Bytes of one row."""
    return like.element_size() * math.prod(like.shape[1:])
