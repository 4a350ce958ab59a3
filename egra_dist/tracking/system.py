"""What the machine does meanwhile: processor, memory, GPU."""

import contextlib
import resource
from typing import Any

import psutil

_GIB = 2**30


class SystemSampler:
    """Samples this process and its machine.

    GPU figures need ``nvidia-ml-py``; without it, or without a GPU, they are left out.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # The first call only starts the measurement.
        psutil.cpu_percent()
        self._gpus = _gpu_handles()

    def sample(self) -> dict[str, float]:
        """Percentages of one core, of the machine and of each GPU; memory in GiB."""
        figures = {
            "system/process_cpu_percent": self._process.cpu_percent(),
            "system/process_memory_gib": self._process.memory_info().rss / _GIB,
            "system/cpu_percent": psutil.cpu_percent(),
            "system/memory_percent": psutil.virtual_memory().percent,
        }
        for index, handle in enumerate(self._gpus):
            figures |= {f"system/gpu_{index}_{k}": v for k, v in _gpu_figures(handle).items()}
        return figures


def peak_memory() -> dict[str, float]:
    """The most memory that this process has had, in GiB; on its GPU, too."""
    import torch

    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {"system/process_peak_memory_gib": kib / 2**20}
    if torch.cuda.is_available():
        figures["system/gpu_peak_memory_gib"] = torch.cuda.max_memory_allocated() / _GIB
    return figures


def _gpu_handles() -> list[Any]:
    with contextlib.suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    return []


def _gpu_figures(handle: Any) -> dict[str, float]:
    import pynvml

    return {
        "utilization_percent": float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        "memory_gib": pynvml.nvmlDeviceGetMemoryInfo(handle).used / _GIB,
    }
