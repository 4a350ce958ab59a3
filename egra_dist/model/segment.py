"""Files in memory, through which the processes of one machine see each other's rows."""

import contextlib
import math
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.model.large_pages import LARGE_PAGE, map_in_large_pages

_FOLDER = Path("/dev/shm")
_SHARE = 1 / 3
"""Of the free memory for files; more of it may be promised to others."""
WORD = 8


class Segment:
    """A file in memory that grows.

    Args:
        name: Of the file.
        is_new: Whether this process makes it, or opens what another has made.
        size: Bytes of a new one.

    Raises:
        OSError: If it cannot be made, or opened.
    """

    def __init__(self, name: str, is_new: bool, size: int = LARGE_PAGE) -> None:
        self.path = _FOLDER / f"egra-{name}"
        flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if is_new else 0)
        self._file = os.open(self.path, flags, 0o600)
        self._map: Any = None
        self._size = 0
        if is_new:
            self._allocate(size)

    def grow(self, size: int) -> None:
        """Makes it at least so large, for all who have it open.

        Raises:
            OSError: If there is no memory left.
        """
        if size > self._size:
            self._allocate(size + size // 4)

    def _allocate(self, size: int) -> None:
        size = max(1, -(-size // LARGE_PAGE)) * LARGE_PAGE
        try:
            os.posix_fallocate(self._file, 0, size)
        except OSError:
            if self._size == 0:
                self.path.unlink(missing_ok=True)
            raise
        self._remap(size)

    def words(self, count: int) -> Tensor:
        """The first numbers, ``int64 [count]``."""
        if self._size == 0:
            self._remap(os.fstat(self._file).st_size)
        return torch.frombuffer(self._map, dtype=torch.int64, count=count)

    def rows(self, place: int, like: Tensor, count: int) -> Tensor:
        """Rows at a place, ``[count, ...]`` as those of ``like``."""
        if count == 0:
            return like.new_empty(0, *like.shape[1:])
        if place + count * row_size(like) > self._size:
            self._remap(os.fstat(self._file).st_size)
        shape = (count, *like.shape[1:])
        numbers = torch.frombuffer(
            self._map, dtype=like.dtype, count=math.prod(shape), offset=place
        )
        return numbers.view(shape)

    def _remap(self, size: int) -> None:
        self._map, self._size = map_in_large_pages(self._file, size), size


class Shared(Protocol):
    """What all ranks of a machine open together."""

    def open(self) -> None:
        """Opens the files of the others; ``OSError`` if it cannot."""

    @property
    def own(self) -> Sequence[Segment]:
        """The files that this rank has made."""


S = TypeVar("S", bound=Shared)


def open_together(make: Callable[[str], S]) -> S | None:
    """Makes what all ranks share, given its name; a collective call.

    Returns:
        None if the ranks do not share a machine's memory.
    """
    names = [uuid.uuid4().hex]
    dist.broadcast_object_list(names, src=0)
    shared = None
    with contextlib.suppress(OSError):
        shared = make(names[0])
    dist.barrier()
    is_open = shared is not None
    if shared is not None:
        try:
            shared.open()
        except OSError:
            is_open = False
    everywhere = torch.tensor(int(is_open))
    dist.all_reduce(everywhere, dist.ReduceOp.MIN)
    # Without a name the files end with the last process that has them open, however it ends.
    for segment in shared.own if shared is not None else []:
        segment.path.unlink(missing_ok=True)
    return shared if everywhere else None


def on_one_machine(device: torch.device) -> bool:
    """Whether the rows, and all ranks of the process group, are in this machine's memory."""
    if device.type != "cpu" or not dist.is_initialized():
        return False
    return int(os.environ.get("LOCAL_WORLD_SIZE", 0)) == dist.get_world_size()


_opened: dict[Any, Any] = {}


def opened(make: Callable[[str], S], device: torch.device) -> S | None:
    """What all ranks of the process group share; the first time a collective call.

    Returns:
        None if the rows or a rank are not in this machine's memory.
    """
    if not on_one_machine(device):
        return None
    group = dist.group.WORLD
    if _opened.get("group") is not group:
        _opened.clear()
        _opened["group"] = group
    if make not in _opened:
        _opened[make] = open_together(make)
    return _opened[make]


def free_bytes() -> int:
    """Memory that files may still take."""
    with contextlib.suppress(OSError):
        state = os.statvfs(_FOLDER)
        return state.f_bavail * state.f_frsize
    return 0


def has_room_for(size: int) -> bool:
    """Whether files of so many bytes leave others, such as Ray's objects, enough."""
    return size <= _SHARE * free_bytes()


def row_size(like: Tensor) -> int:
    """Bytes of one row."""
    return like.element_size() * math.prod(like.shape[1:])
