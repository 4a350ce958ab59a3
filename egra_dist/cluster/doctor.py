"""Judges a machine: what fits, what does not, and what to do about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from packaging.requirements import Requirement

from egra_dist.cluster.machine import Machine

PYTHON = (3, 11)
MATCHING = {"torch": "2.13.0", "torchrec": "1.8.0", "fbgemm-gpu": "1.8.0"}
"""Built against each other: another release of one of them does not load with the others."""
_FBGEMM_BUILDS = ("fbgemm-gpu", "fbgemm-gpu-cpu")
_SHOWN = ("ray", "mlflow", "pyarrow", "faiss-cpu", "numpy", "pydantic", "typer")
_REINSTALL = "run `make install`"
_FEW_OPEN_FILES = 4096
_SHARE_OF_OBJECT_STORE = 0.3  # of the memory, by Ray's default
_LITTLE_MEMORY = 4 << 30

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of the report; a problem is something that would make a run fail."""

    name: str
    status: Status
    found: str
    advice: str = ""


def examine(machine: Machine) -> list[Finding]:
    """All findings about a machine, in the order in which they are best read."""
    return [
        _python(machine),
        *_matching_triple(machine),
        _kernels(machine),
        *_requirements(machine),
        _gpus(machine),
        _cpus(machine),
        _memory(machine),
        _shared_memory(machine),
        _open_files(machine),
    ]


def _python(machine: Machine) -> Finding:
    found = ".".join(map(str, machine.python))
    if machine.python == PYTHON:
        return Finding("python", "ok", found)
    wanted = ".".join(map(str, PYTHON))
    return Finding("python", "problem", found, f"use Python {wanted}, and there {_REINSTALL}")


def _matching_triple(machine: Machine) -> Iterator[Finding]:
    for name, wanted in MATCHING.items():
        builds = _FBGEMM_BUILDS if name == "fbgemm-gpu" else (name,)
        installed = [build for build in builds if build in machine.versions]
        found = ", ".join(f"{build} {machine.versions[build]}" for build in installed)
        if len(installed) > 1:
            advice = f"they overwrite each other: uninstall both and {_REINSTALL}"
            yield Finding(name, "problem", found, advice)
        elif not installed:
            yield Finding(name, "problem", "not installed", _REINSTALL)
        elif machine.versions[installed[0]].partition("+")[0] != wanted:
            advice = f"{wanted} goes with the others: {_REINSTALL}"
            yield Finding(name, "problem", found, advice)
        else:
            yield Finding(name, "ok", found)


def _kernels(machine: Machine) -> Finding:
    kernels = machine.kernels
    if not kernels.failure:
        return Finding("kernels", "ok", "torch, fbgemm and torchrec load together")
    advice = f"torch, torchrec and fbgemm must match: {_REINSTALL}"
    return Finding("kernels", "problem", kernels.failure, advice)


def _requirements(machine: Machine) -> Iterator[Finding]:
    """What is asked for and shown, and whatever else is missing or of a wrong version."""
    for text in machine.requirements:
        requirement = Requirement(text)
        name = requirement.name.lower()
        if name in MATCHING or (requirement.marker and not requirement.marker.evaluate()):
            continue
        version = machine.versions.get(name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wanted = f"{name}{requirement.specifier}"
            advice = f"{wanted} is needed: {_REINSTALL}"
            yield Finding(name, "problem", version or "not installed", advice)
        elif name in _SHOWN:
            yield Finding(name, "ok", version)


def _gpus(machine: Machine) -> Finding:
    found = ", ".join(machine.gpus) or "none"
    if not machine.kernels.failure and len(machine.gpus) > machine.kernels.num_gpus:
        found += f" (torch sees {machine.kernels.num_gpus})"
        advice = "the CPU build of torch, or an old driver: run `make install VARIANT=cuda`"
        return Finding("gpus", "warning", found, advice)
    if machine.kernels.num_gpus and "fbgemm-gpu-cpu" in machine.versions:
        advice = "fbgemm is the CPU build: run `make install VARIANT=cuda`"
        return Finding("gpus", "problem", found, advice)
    return Finding("gpus", "ok", found)


def _cpus(machine: Machine) -> Finding:
    found = f"{machine.num_cpus}, torch uses {machine.kernels.num_threads} threads"
    if machine.kernels.failure or machine.kernels.num_threads <= machine.num_cpus:
        return Finding("cpus", "ok", found)
    advice = "more threads than CPUs slow each other down: unset OMP_NUM_THREADS"
    return Finding("cpus", "warning", found, advice)


def _memory(machine: Machine) -> Finding:
    if machine.memory >= _LITTLE_MEMORY:
        return Finding("memory", "ok", _gib(machine.memory))
    advice = f"small catalogues only: Ray alone takes about 1 GiB of {_gib(machine.memory)}"
    return Finding("memory", "warning", _gib(machine.memory), advice)


def _shared_memory(machine: Machine) -> Finding:
    size = machine.shared_memory
    if size is None:
        return Finding("/dev/shm", "ok", "none; Ray uses a file instead")
    wanted = _SHARE_OF_OBJECT_STORE * machine.memory
    if size >= wanted:
        return Finding("/dev/shm", "ok", _gib(size))
    advice = "Ray's object store falls back to disk: start the container with --shm-size="
    return Finding(
        "/dev/shm", "warning", _gib(size), f"{advice}{_gib(wanted).replace(' GiB', 'g')}"
    )


def _open_files(machine: Machine) -> Finding:
    found = f"{machine.open_files:,}" if machine.open_files > 0 else "no limit"
    if not 0 < machine.open_files < _FEW_OPEN_FILES:
        return Finding("open files", "ok", found)
    return Finding("open files", "warning", found, "Ray needs more: ulimit -n 65536")


def _gib(size: float) -> str:
    return f"{size / (1 << 30):.1f} GiB"
