"""One process at a time: a lock that a process holds for as long as it lives, on a file."""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_log = logging.getLogger(__name__)
_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextmanager
def locked(path: Path, waiting_for: str) -> Iterator[None]:
    """Holds the lock file ``path`` while the block runs; waits while another process holds it.

    The lock ends with the process that holds it, however it ends; the file that a killed process
    leaves holds nobody up. On a file system without locks the block runs unprotected, after a
    warning.

    Args:
        path: The lock file; its folder is created.
        waiting_for: What is logged when another process has to be waited for.

    Raises:
        OSError: If the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _acquire(path, waiting_for)
    try:
        yield
    finally:
        if file:
            path.unlink(missing_ok=True)  # before others get the lock, see _is_current
            file.close()


def _acquire(path: Path, waiting_for: str) -> IO[str] | None:
    while True:
        file = path.open("w")
        try:
            _wait(file, waiting_for)
        except OSError as error:
            file.close()
            if error.errno not in _NO_LOCKS_HERE:
                raise
            _log.warning(
                "%s: no locks on this file system; run only one process at a time", path.parent
            )
            return None
        except BaseException:
            file.close()
            raise
        if _is_current(file, path):
            return file
        file.close()


def _wait(file: IO[str], waiting_for: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log.info("waiting for %s", waiting_for)
        fcntl.flock(file, fcntl.LOCK_EX)


def _is_current(file: IO[str], path: Path) -> bool:
    """Whether the locked file is still the one at its path: who held it before removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
