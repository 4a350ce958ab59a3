"""What a run was made with: versions, the code's state, the machine. Nothing heavy is imported."""

import contextlib
import getpass
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

import psutil

_PACKAGES = (
    "egra-dist",
    "torch",
    "torchrec",
    "fbgemm-gpu",
    "fbgemm-gpu-cpu",
    "ray",
    "mlflow",
    "pyarrow",
    "faiss-cpu",
)
_GIB = 2**30
GIT_TAGS = {"commit": "mlflow.source.git.commit", "dirty": "git.dirty"}
GIT_VARIABLES = {"commit": "EGRA_GIT_COMMIT", "dirty": "EGRA_GIT_DIRTY"}
"""What a job is told, whose code is a copy."""


def facts() -> dict[str, str]:
    """Tags that say what a run was made with; what cannot be found out is left out."""
    return {**_user(), **_versions(), **git_state(GIT_TAGS), **_host()}


def packages() -> str:
    """Every installed package with its version, a line each, as pip writes them."""
    found = {f"{d.metadata['Name']}=={d.version}" for d in distributions()}
    return "".join(f"{line}\n" for line in sorted(found, key=str.lower))


def _user() -> dict[str, str]:
    with contextlib.suppress(KeyError, OSError):
        return {"mlflow.user": getpass.getuser()}
    return {}


def _versions() -> dict[str, str]:
    tags = {"version.python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            tags[f"version.{package}"] = version(package)
    return tags


def git_state(names: Mapping[str, str]) -> dict[str, str]:
    """The state of the code's repository.

    Args:
        names: What to call ``commit`` and ``dirty``.

    Returns:
        Nothing where the code is not in a repository of its own.
    """
    state = {what: os.environ.get(variable, "") for what, variable in GIT_VARIABLES.items()}
    if not all(state.values()):
        state = _git_state()
    return {names[what]: value for what, value in state.items()}


def _git_state() -> dict[str, str]:
    folder = Path(__file__).parent
    commit = _output("git", "-C", str(folder), "rev-parse", "HEAD")
    if not commit or _output("git", "-C", str(folder), "ls-files", __file__) == "":
        return {}  # Installed from a package; perhaps inside somebody else's repository.
    changes = _output("git", "-C", str(folder), "status", "--porcelain", "-uno")
    return {"commit": commit, "dirty": str(bool(changes)).lower()}


def _host() -> dict[str, str]:
    tags = {
        "host.name": platform.node(),
        "host.num_cpus": str(os.cpu_count()),
        "host.memory_gib": f"{psutil.virtual_memory().total / _GIB:.0f}",
    }
    gpus = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    if gpus:
        tags |= {"host.num_gpus": str(len(gpus.splitlines())), "host.gpu": gpus.splitlines()[0]}
    return tags


def _output(*command: str) -> str:
    """What a command says; empty when it is absent, fails or takes too long."""
    if not shutil.which(command[0]):
        return ""
    with contextlib.suppress(subprocess.SubprocessError, OSError):
        return subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    return ""
