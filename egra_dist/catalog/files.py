"""Input files: what is in them, told by a digest."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from egra_dist.errors import UserError


def content_digest(paths: Sequence[Path]) -> str:
    """Digest of the bytes of files in this order; their names and times do not matter.

    Returns:
        16 hexadecimal digits.

    Raises:
        UserError: If a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()[:16]
