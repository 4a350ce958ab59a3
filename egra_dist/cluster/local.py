"""A Ray of this machine alone: started in a folder of its own, and ended with all it has made."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from egra_dist.errors import UserError

_log = logging.getLogger(__name__)

_MAX_TEMPORARY_PATH = 40  # a Unix socket's path has 107 bytes, and Ray adds up to 64
_ATTEMPTS = 3
_TOO_SLOW = ("timed out during startup", "Failed to start GCS")
"""Ray gives its own processes half a minute, and has neither a setting nor an error for it."""


@contextmanager
def started_ray(num_cpus: int, options: dict[str, Any]) -> Iterator[None]:
    """Starts Ray, again where a busy machine kept it from coming up, and ends it.

    Args:
        num_cpus: CPUs that it offers.
        options: Further arguments of ``ray.init``.

    Raises:
        UserError: If it did not come up in any of the attempts.
    """
    with _on_loopback():
        for attempt in range(1, _ATTEMPTS + 1):
            with _ended_ray() as folder:
                obstacle = _start(num_cpus, folder, options)
                if obstacle is None:
                    yield
                    return
            if attempt < _ATTEMPTS:
                _log.warning("Ray did not come up in time on this machine; trying again")
    raise UserError(
        f"Ray did not come up on this machine, {_ATTEMPTS} times, as one that is busy or short of "
        "memory keeps it from: end what else runs here, or set cluster.address to a cluster "
        f"(Ray says: {obstacle})"
    )


@contextmanager
def _ended_ray() -> Iterator[str]:
    """A new folder for a Ray, of which nothing is left after the block."""
    import ray

    folder = tempfile.mkdtemp(prefix="egra-ray-", dir=_short_temporary_folder())
    try:
        yield folder
    finally:
        ray.shutdown()
        _kill_processes_of(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _start(num_cpus: int, folder: str, options: dict[str, Any]) -> str | None:
    """Returns what a slow machine kept Ray from; None if it runs."""
    import ray

    try:
        ray.init(
            address="local",  # not one that `ray start` has left on this machine
            num_cpus=num_cpus,
            include_dashboard=False,
            _temp_dir=folder,
            **options,
        )
    except Exception as error:
        reason = " ".join(str(error).split())
        if not any(slow in reason for slow in _TOO_SLOW):
            raise
        return reason
    return None


def _kill_processes_of(folder: str) -> None:
    """Ends what a start that failed has left: Ray itself would keep it as long as we live."""
    for process in psutil.Process().children():
        with suppress(psutil.Error):
            if any(folder in argument for argument in process.cmdline()):
                process.kill()
                process.wait()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Lets a session that begins in the block listen on the loopback alone.

    Ray does so where a firewall would ask the user, unless this variable is 1; and nobody from
    elsewhere has to reach a Ray that has one machine.
    """
    from ray._private import ray_constants

    name, earlier = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    if name in os.environ:
        yield
        return
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        del os.environ[name]
        ray_constants.ENABLE_RAY_CLUSTER = earlier


def _short_temporary_folder() -> str:
    folder = tempfile.gettempdir()
    return folder if len(folder) <= _MAX_TEMPORARY_PATH else "/tmp"
