"""Rows between processes of one machine: through shared memory instead of the network's loopback.

Gloo copies what it sends four times on its way through the kernel, in threads that take the cores
from whoever computes. Here a rank writes what the others get into a file in memory, tells them so,
and they copy their parts. Two files take turns: nobody overwrites what is still being read.
"""

import contextlib
import os
import uuid
from collections.abc import Sequence
from mmap import mmap
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

_FOLDER = Path("/dev/shm")
_FIRST_SIZE = 1 << 20
_WORD = 8


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

    def exchange(
        self, rows: Tensor, num_sent: Sequence[int], num_received: Sequence[int]
    ) -> Tensor:
        """An all-to-all of rows of one kind; a collective call.

        Args:
            rows: ``[sum(num_sent), ...]``, contiguous, those for rank 0 first.
            num_sent: Rows for each rank.
            num_received: Rows from each rank.

        Returns:
            ``[sum(num_received), ...]``, those from rank 0 first.
        """
        received = rows.new_empty((sum(num_received), *rows.shape[1:]))
        width = rows.element_size() * (rows[0].numel() if len(rows) else 1)
        outgoing, turn = rows.split(list(num_sent)), self._turn
        self._write(self._own[turn], outgoing, width)
        self._turn = 1 - turn
        dist.barrier()
        for rank, target in enumerate(received.split(list(num_received))):
            if rank == self._rank:
                target.copy_(outgoing[rank])
            elif len(target):
                self._others[rank][turn].read(self._rank, _bytes(target))
        return received

    def _write(self, segment: "_Segment", parts: Sequence[Tensor], width: int) -> None:
        sizes = [0 if rank == self._rank else len(p) * width for rank, p in enumerate(parts)]
        header = _WORD * self._num_ranks
        segment.grow(header + sum(sizes))
        places = [header + sum(sizes[:rank]) for rank in range(self._num_ranks)]
        segment.words(self._num_ranks).copy_(torch.tensor(places))
        for place, size, part in zip(places, sizes, parts, strict=True):
            if size:
                segment.bytes(place, size).copy_(_bytes(part))


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

    def read(self, reader: int, target: Tensor) -> None:
        """Copies what was written for a rank."""
        if self._size == 0:
            self._remap(os.fstat(self._file).st_size)
        place = int(self.words(reader + 1)[reader])
        if place + len(target) > self._size:
            self._remap(os.fstat(self._file).st_size)
        target.copy_(self.bytes(place, len(target)))

    def words(self, count: int) -> Tensor:
        """The first numbers, ``int64 [count]``."""
        return torch.frombuffer(self._map, dtype=torch.int64, count=count)

    def bytes(self, place: int, size: int) -> Tensor:
        """``uint8 [size]``."""
        return torch.frombuffer(self._map, dtype=torch.uint8, count=size, offset=place)

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


def _bytes(rows: Tensor) -> Tensor:
    return rows.reshape(-1).view(torch.uint8)
