"""Where the ranks of one machine wait for each other.

A step has ten or twenty such places, at which nothing is sent. Gloo takes a fifth of a millisecond
for each, and as much of the processor again in a thread of its own; a byte through a socket takes
a tenth of that.
"""

import os
import socket
import struct
import sys
from collections.abc import Sequence

import torch
import torch.distributed as dist

from egra_dist.model.segment import Segment, opened

_SECONDS_TO_OPEN, _SECONDS_TO_WAIT = 60, 1800
_DONE, _NOT_DONE = b"\x01", b"\x00"
_CREDENTIALS = struct.Struct("3i")


class Meeting:
    """A socket between each two ranks; opened by all ranks together.

    Args:
        name: The same on all ranks.

    Raises:
        OSError: If there can be no such sockets here.
    """

    own: Sequence[Segment] = ()

    def __init__(self, name: str) -> None:
        if sys.platform != "linux":
            raise OSError("sockets without a file are only there on Linux")
        self._rank, self._num_ranks = dist.get_rank(), dist.get_world_size()
        self._name = name
        self._others: list[socket.socket] = []
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(self._address(self._rank))
        self._door.listen(self._num_ranks)

    def _address(self, of: int) -> str:
        return f"\0egra-{self._name}-{of}"

    def open(self) -> None:
        """Connects with all others once their sockets are there; ``OSError`` if it cannot."""
        with self._door as door:
            for lower in range(self._rank):
                other = socket.socket(socket.AF_UNIX)
                other.connect(self._address(lower))
                self._others.append(other)
            door.settimeout(_SECONDS_TO_OPEN)
            while len(self._others) < self._num_ranks - 1:
                self._others.append(door.accept()[0])
        for other in self._others:
            other.settimeout(_SECONDS_TO_WAIT)
        if any(_user_of(other) != os.getuid() for other in self._others):
            raise OSError("somebody else has come")

    def done_by_all(self, is_done: bool) -> bool:
        """Waits for all ranks, and tells whether each of them has done it; a collective call.

        Raises:
            ConnectionError: If one has ended.
            TimeoutError: If one has not come for half an hour, as long as gloo waits.
        """
        try:
            for other in self._others:
                other.sendall(_DONE if is_done else _NOT_DONE)
            answers = [other.recv(1) for other in self._others]
        except ConnectionError:
            answers = [b""]
        if b"" in answers:
            raise ConnectionError("another worker of this machine has ended")
        return is_done and _NOT_DONE not in answers


def _user_of(other: socket.socket) -> int:
    """Who is at the other end."""
    found = other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[1])


def done_by_all(is_done: bool) -> bool:
    """Waits for all ranks, and tells whether each of them has done it; a collective call."""
    meeting = opened(Meeting, torch.device("cpu"))
    if meeting is not None:
        return meeting.done_by_all(is_done)
    num_failed = torch.tensor([int(not is_done)])
    dist.all_reduce(num_failed)
    return not num_failed.item()
