import ctypes
import mmap
import sys

import numpy as np
import pytest
import torch

from egra_dist.train import memory

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux and glibc")


@LINUX
def test_freed_memory_is_there_again_without_being_mapped_anew():
    import resource

    memory.keep_freed_memory()
    for _ in range(10):
        torch.ones(5_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(5_000_000)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 0.1 * 20 * 20_000_000 / mmap.PAGESIZE


def resident_pages(array):
    start = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    length = array.ctypes.data + array.nbytes - start
    status = (ctypes.c_ubyte * (-(-length // mmap.PAGESIZE)))()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(start), ctypes.c_size_t(length), status) == 0
    return np.mean([byte & 1 for byte in status])


@LINUX
def test_mapped_arrays_are_read_without_page_faults(tmp_path):
    import resource

    np.save(tmp_path / "a.npy", np.arange(4_000_000))
    array = np.load(tmp_path / "a.npy", mmap_mode="r")
    if not memory.map_pages([array[: len(array) // 2], np.arange(3)]):
        pytest.skip("needs Linux 5.14")
    half = array[: len(array) // 2]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert half[:: mmap.PAGESIZE // 8].sum() >= 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 200
    assert resident_pages(half) == 1


def test_files_that_leave_too_little_memory_are_not_mapped(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.arange(1000))
    monkeypatch.setattr(memory, "_SHARE", 0.0)
    assert not memory.map_pages([np.load(tmp_path / "a.npy", mmap_mode="r")])
