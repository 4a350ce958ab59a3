import resource
import sys

import pytest
import torch

from egra_dist.train.memory import keep_freed_memory

NUM_BYTES = 24 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="an option of glibc")
def test_freed_matrices_are_used_again():
    keep_freed_memory()
    page_faults = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        # Several at once, so that more is free at the top of the heap than glibc keeps by itself.
        matrices = [torch.ones(NUM_BYTES // 4) for _ in range(4)]
        del matrices
        page_faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert min(page_faults[1:]) < NUM_BYTES / resource.getpagesize()
