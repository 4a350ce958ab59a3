import os
import sys

import pytest
import torch

from egra_dist.model import large_pages
from egra_dist.model.large_pages import LARGE_PAGE, map_in_large_pages


@pytest.fixture
def file():
    descriptor = os.memfd_create("test") if hasattr(os, "memfd_create") else None
    if descriptor is None:
        pytest.skip("no files in memory here")
    os.posix_fallocate(descriptor, 0, 2 * LARGE_PAGE)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("system", [sys.platform, "elsewhere"])
def test_what_is_written_there_is_in_the_file_and_in_other_maps(file, system, monkeypatch):
    monkeypatch.setattr(large_pages.sys, "platform", system)
    one, other = (map_in_large_pages(file, 2 * LARGE_PAGE) for _ in range(2))
    numbers = torch.frombuffer(one, dtype=torch.int64)
    numbers.copy_(torch.arange(len(numbers)))
    assert torch.equal(torch.frombuffer(other, dtype=torch.int64), numbers)
    written = os.pread(file, 16, LARGE_PAGE)
    assert int.from_bytes(written[:8], sys.byteorder) == LARGE_PAGE // 8


@pytest.mark.skipif(sys.platform != "linux", reason="other systems choose the place")
def test_the_place_is_a_multiple_of_a_large_page(file):
    starts = [
        torch.frombuffer(map_in_large_pages(file, LARGE_PAGE), dtype=torch.uint8).data_ptr()
        for _ in range(3)
    ]
    assert len(set(starts)) == 3
    assert all(start % LARGE_PAGE == 0 for start in starts)
