"""How a training uses memory: what is freed stays, and files are mapped before they are read."""

import ctypes
import mmap
import sys
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_NEVER = 2**31 - 1
_GROWTH = 2**26
_MADV_POPULATE_READ = 22
_SHARE = 0.5
"""Of the available memory that files may take."""


def keep_freed_memory() -> None:
    """Tells glibc not to give back to the system what the next step will need again.

    A step makes and frees matrices of tens of MB. Left to itself glibc maps each of them anew, and
    the system fills it with zeros page by page, which takes longer than most products over it.
    Elsewhere than on Linux with glibc nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
    mallopt(_M_TOP_PAD, _GROWTH)
    mallopt(_M_ARENA_MAX, 1)


def map_pages(arrays: Iterable[NDArray]) -> bool:
    """Maps memory-mapped arrays into this process at once, if there is room for all of them.

    Otherwise the system stops the process at the first touch of every page, for as long as half a
    step takes: batches touch pages all over the files. The pages are shared with other processes.

    Returns:
        Whether they were mapped (Linux from 5.14 on).
    """
    import psutil

    parts = [array for array in arrays if isinstance(array, np.memmap) and array.nbytes]
    wanted = sum(array.nbytes for array in parts)
    if not sys.platform.startswith("linux") or not parts:
        return False
    if wanted > _SHARE * psutil.virtual_memory().available:
        return False
    return sum(map(_populate, parts)) == len(parts)


def _populate(array: NDArray) -> bool:
    start = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    length = array.ctypes.data + array.nbytes - start
    libc = ctypes.CDLL(None)
    return libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_POPULATE_READ) == 0
