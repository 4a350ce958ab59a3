"""What a training asks of the C library's memory."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of glibc's options, see mallopt(3)."""
_KEPT_BYTES = 256 * 2**20
_LARGEST_KEPT = 32 * 2**20
"""The most that glibc allows."""


def keep_freed_memory() -> None:
    """Has freed matrices used again in the next step instead of given back to the system.

    By default each matrix of some megabytes is mapped anew and its pages are zeroed, several
    hundred times in a step. Does nothing where the C library has no such option.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_TRIM_THRESHOLD, _KEPT_BYTES)
        set_option(_MMAP_THRESHOLD, _LARGEST_KEPT)
