"""Files that are whole or absent, stay where they belong, and failures to write that are named."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from egra_dist.errors import UserError

_WRITE_FAILURES = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
}


def write_json(path: Path, content: Any) -> None:
    """Writes JSON so that readers see the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w") as file:
        json.dump(content, file, indent=2, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def write_failures_named(folder: Path) -> Iterator[None]:
    """A full or read-only disk is the user's to mend.

    Args:
        folder: What is written in the block.

    Raises:
        UserError: If it cannot be.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _WRITE_FAILURES:
            raise
        raise UserError(f"{folder}: cannot be written: {os.strerror(error.errno)}") from error


def inside(folder: Path, path: Path) -> Path:
    """The path, unless it leads out of a folder, by ``..`` or by a link.

    Raises:
        UserError: If it does.
    """
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name that cannot be
        is_inside = False
    if not is_inside:
        raise UserError(f"{path}: leads out of {folder}")
    return path
