"""The Ray session: a cluster's when there is an address, else a private one on this machine."""

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from egra_dist.cluster.local import started_ray
from egra_dist.cluster.resources import num_local_slots
from egra_dist.config import ClusterSettings
from egra_dist.errors import UserError
from egra_dist.tracking.noise import quiet_environment

_AUTHENTICATION = "RAY_AUTH_MODE"
_LARGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
"""Torch asks for large pages: tables are read at random, and new memory is there sooner."""
_NO_PREEMPTION = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
"""This machine is not told to leave: no training starts a process to watch for it."""
_HANDED_ON = (*_LARGE_PAGES, "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "OMP_NUM_THREADS")


@contextmanager
def ray_session(settings: ClusterSettings, verbose: int = 0) -> Iterator[None]:
    """Connects to Ray, or starts it on this machine, and ends what it started.

    A session that already exists in this process is used as it is, and left running.

    Args:
        settings: Address, number of workers, environment of the workers.
        verbose: From 1 on, Ray's own log and what the workers print is shown.

    Raises:
        UserError: If there is no cluster at the address, it does not let us in, or Ray does not
            come up on this machine.
    """
    address = _address(settings)
    quiet = quiet_environment(local=address is None, verbose=verbose)
    _prepare_process(quiet, local=address is None)
    import ray

    if ray.is_initialized():
        yield
        return
    earlier = signal.getsignal(signal.SIGTERM)
    options: dict[str, Any] = {
        "log_to_driver": bool(verbose),
        "logging_level": logging.INFO if verbose else logging.ERROR,
        "runtime_env": {"env_vars": worker_environment(settings, quiet, local=address is None)},
    }
    slots = num_local_slots(settings)
    with _connected(address, options) if address else started_ray(slots, options):
        _restore_sigterm(earlier)
        yield


def _restore_sigterm(earlier: Any) -> None:
    """Ray takes SIGTERM for itself when it is started; it may, where nobody has it."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and earlier is not signal.SIG_DFL:
        signal.signal(signal.SIGTERM, earlier)


def worker_environment(
    settings: ClusterSettings, quiet: dict[str, str], local: bool
) -> dict[str, str]:
    """Environment of the workers: the settings' word counts most, this process's next, ours last.

    Gloo has to be told its interface: on a machine without a resolvable host name it finds none,
    on several machines it may find the loopback. Ray sets ``OMP_NUM_THREADS`` to the CPUs that a
    worker reserves, so that is handed on only when the user has set it.
    """
    environment = {**quiet, **_LARGE_PAGES}
    if local:
        environment["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
        environment |= _NO_PREEMPTION
    for name in _HANDED_ON:
        if name in os.environ:
            environment[name] = os.environ[name]
    return environment | settings.environment


@contextmanager
def _connected(address: str, options: dict[str, Any]) -> Iterator[None]:
    import ray
    from ray.exceptions import AuthenticationError

    where = f"cluster.address = {address!r}"
    try:
        ray.init(address=address, **options)
    except AuthenticationError:
        raise UserError(
            f"{where}: the cluster asks for a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        ) from None
    except (ConnectionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: cannot connect: {reason}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _address(settings: ClusterSettings) -> str | None:
    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith(("http://", "https://")):
        raise UserError(
            f"cluster.address = {address!r}: this is a job server; give the cluster's HOST:PORT"
        )
    return None if address == "local" else address


def _prepare_process(quiet: dict[str, str], local: bool) -> None:
    """Sets what Ray reads from this process's environment; what the user has set stays."""
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # a job's variables and ours merge
    if _AUTHENTICATION not in os.environ:
        choose_authentication(local)


def choose_authentication(local: bool) -> None:
    """Says it explicitly, since Ray's own default depends on files that earlier runs left.

    Who reaches Ray may run code: a local session gets a token of its own, that no file keeps. On
    a cluster the user's token is used where there is one.
    """
    if local:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    in_environment = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    has_token = in_environment or (Path.home() / ".ray" / "auth_token").exists()
    os.environ[_AUTHENTICATION] = "token" if has_token else "disabled"
    if "ray" in sys.modules:  # it read the variable when it was imported
        from ray._raylet import Config  # type: ignore[attr-defined]  # its stub lacks it

        Config.initialize("")
