"""What a folder says of itself: ``manifest.json``, and the digest of what it was made from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from egra_dist.errors import UserError
from egra_dist.files import write_json

SCHEMA_VERSION = 1
REVISIONS = {"knn": 2, "knn-work": 2}
"""Raised when what a kind is made of changes for the same settings and its folders stay readable:
they are then made anew, and others are not."""
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What an artifact is and what it was made from.

    Attributes:
        kind: What the folder holds, e.g. ``"catalog"`` or ``"knn"``.
        digest: Identity of the content, see :func:`digest_of`.
        settings: The settings that shaped it.
        inputs: Digests of the artifacts it was made from, by name.
        counts: Sizes and other facts worth knowing without opening the data.
        schema: Version of the folder's layout.
    """

    kind: str
    digest: str
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        """Writes ``manifest.json`` into ``folder``, as the last file of an artifact."""
        write_json(folder / MANIFEST, asdict(self))


def digest_of(kind: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Digest of what an artifact is made from: equal digests mean equal content.

    Args:
        kind: What the artifact holds.
        settings: JSON-serialisable settings that shape the content.
        inputs: Digests of the inputs, by name.

    Returns:
        16 hexadecimal digits.
    """
    recipe = {"kind": kind, "schema": SCHEMA_VERSION, "settings": settings, "inputs": inputs}
    if kind in REVISIONS:
        recipe["revision"] = REVISIONS[kind]
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_manifest(folder: Path, kind: str) -> Manifest:
    """Reads the manifest of a finished artifact.

    Raises:
        UserError: If there is none, or it is of another kind or schema version.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder}: not a {kind} folder (it has no {MANIFEST})") from None
    except OSError as error:
        raise UserError(f"{path}: not a readable manifest: {error.strerror}") from None
    manifest = parse_manifest(content, str(path))
    if manifest.kind != kind:
        raise UserError(f"{path}: kind is {manifest.kind!r}, expected {kind!r}")
    if manifest.schema != SCHEMA_VERSION:
        raise UserError(f"{path}: schema is {manifest.schema}, this version reads {SCHEMA_VERSION}")
    return manifest


def parse_manifest(content: bytes, where: str) -> Manifest:
    """Reads the content of a ``manifest.json``.

    Raises:
        UserError: Naming ``where``, if it is not one.
    """
    try:
        return _checked(Manifest(**json.loads(content)))
    except (ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: not a readable manifest: {reason}") from None


def _checked(manifest: Manifest) -> Manifest:
    for name in ("kind", "digest"):
        if not isinstance(getattr(manifest, name), str):
            raise TypeError(f"{name} must be a text")
    for name in ("settings", "inputs", "counts"):
        if not isinstance(getattr(manifest, name), dict):
            raise TypeError(f"{name} must be an object")
    return manifest
