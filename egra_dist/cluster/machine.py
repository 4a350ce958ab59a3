"""What this machine has: installed versions, kernels that load, CPUs, memory, GPUs."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from egra_dist.cluster.resources import num_local_cpus

_SHARED_MEMORY = Path("/dev/shm")
_PROBE_SECONDS = 120
_PROBE = """
import json, os, sys
real = os.dup(1); os.dup2(2, 1)
import torch, fbgemm_gpu, torchrec
torch.ops.fbgemm.asynchronous_complete_cumsum(torch.tensor([1, 2]))
os.write(real, json.dumps([torch.cuda.device_count(), torch.get_num_threads()]).encode())
"""


@dataclass(frozen=True)
class Kernels:
    """Whether torch, FBGEMM and TorchRec load together and run an operator."""

    failure: str = ""
    """The last line of what went wrong; empty when nothing did."""
    num_gpus: int = 0
    """GPUs that torch can use."""
    num_threads: int = 1
    """Threads that torch uses."""


@dataclass(frozen=True)
class Machine:
    """All that :func:`egra_dist.cluster.doctor.examine` judges. Sizes are in bytes."""

    python: tuple[int, int]
    versions: dict[str, str]
    """Installed distributions, by normalised name."""
    requirements: tuple[str, ...]
    """What the package asks for, as PEP 508 strings."""
    kernels: Kernels
    gpus: tuple[str, ...]
    """Names of the GPUs that the driver shows."""
    num_cpus: int
    memory: int
    shared_memory: int | None
    """Size of ``/dev/shm``; None where there is none."""
    open_files: int
    """How many files a process may have open, unless it asks for more."""

    @classmethod
    def here(cls) -> "Machine":
        """Looks at this machine; takes the seconds that torch and TorchRec need to import."""
        import resource

        import psutil

        return cls(
            python=sys.version_info[:2],
            versions=_installed_versions(),
            requirements=tuple(metadata.requires("egra-dist") or ()),
            kernels=try_kernels(),
            gpus=_gpu_names(),
            num_cpus=num_local_cpus(),
            memory=psutil.virtual_memory().total,
            shared_memory=_size_of_shared_memory(),
            open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        )


def try_kernels(code: str = _PROBE) -> Kernels:
    """Loads the kernels in a process of their own, which a wrong build may crash."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Kernels(failure=f"did not load in {_PROBE_SECONDS} seconds")
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return Kernels(failure=lines[-1] if lines else f"exit status {done.returncode}")
    num_gpus, num_threads = json.loads(done.stdout)
    return Kernels(num_gpus=num_gpus, num_threads=num_threads)


def _installed_versions() -> dict[str, str]:
    found = metadata.distributions()
    return {_normalised(one.metadata["Name"]): one.version for one in found if one.metadata["Name"]}


def _normalised(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _gpu_names() -> tuple[str, ...]:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    if not shutil.which(command[0]):
        return ()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return tuple(done.stdout.strip().splitlines()) if done.returncode == 0 else ()


def _size_of_shared_memory() -> int | None:
    return shutil.disk_usage(_SHARED_MEMORY).total if _SHARED_MEMORY.is_dir() else None
