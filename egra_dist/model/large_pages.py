"""Files in memory, mapped in large pages.

Rows that are read here and there miss the processor's address cache with almost every one, unless
pages are large. The kernel does not make them so for shared files by itself, but when it is asked
(``MADV_COLLAPSE``, Linux 6.1); a file must then be mapped at a multiple of their size.
"""

import ctypes
import mmap
import sys
import weakref
from collections.abc import Callable
from typing import Any

LARGE_PAGE = 2 << 20
_FIXED, _COLLAPSE = 0x10, 25


def map_in_large_pages(file: int, size: int) -> Any:
    """Maps a file to be read and written.

    Args:
        file: Descriptor of a file in memory, all of it allocated.
        size: Its bytes, a multiple of :data:`LARGE_PAGE`.

    Returns:
        A buffer, mapped as long as anybody has it. In small pages where the system knows no better.

    Raises:
        OSError: If it cannot be mapped.
    """
    call = _libc_mmap() if sys.platform == "linux" else None
    place = None if call is None else _place_in(call, file, size)
    if place is None:
        return mmap.mmap(file, size)
    ctypes.CDLL(None).madvise(ctypes.c_void_p(place), ctypes.c_size_t(size), _COLLAPSE)
    buffer = (ctypes.c_char * size).from_address(place)
    # At the end of the process tensors may outlive it.
    weakref.finalize(buffer, _unmap, place, size).atexit = False
    return buffer


def _unmap(place: int, size: int) -> None:
    ctypes.CDLL(None).munmap(ctypes.c_void_p(place), ctypes.c_size_t(size))


def _place_in(call: Callable[..., int | None], file: int, size: int) -> int | None:
    """Reserves addresses for one page more, and maps the file at the first multiple in there."""
    hidden = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    start = call(None, size + LARGE_PAGE, 0, hidden, -1, 0)
    if start in (None, _FAILED):
        return None
    place = -(-start // LARGE_PAGE) * LARGE_PAGE
    access = mmap.PROT_READ | mmap.PROT_WRITE
    found = call(place, size, access, mmap.MAP_SHARED | _FIXED, file, 0)
    return None if found in (None, _FAILED) else found


_FAILED = ctypes.c_void_p(-1).value


def _libc_mmap() -> Callable[..., int | None]:
    call = ctypes.CDLL(None, use_errno=True).mmap
    call.restype = ctypes.c_void_p
    number = ctypes.c_int
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, number, number, number, ctypes.c_long]
    return call
