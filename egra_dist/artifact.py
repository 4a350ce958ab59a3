"""Folders that are either whole or absent, and know what they were made from.

Every step of the pipeline writes one artifact: a folder with a ``manifest.json`` (schema version,
kind, counts, settings, and the digests of its inputs). It is written under a temporary name and
renamed when whole, so that a step that died leaves nothing that looks finished, and a step whose
digest is already on disk is not run again.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from egra_dist.errors import UserError
from egra_dist.lock import locked

_log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
REVISIONS = {"knn": 2, "knn-work": 2}
"""Raised when what a kind is made of changes for the same settings and its folders stay readable:
they are then made anew, and others are not."""
MANIFEST = "manifest.json"
_WRITE_FAILURES = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
}


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


def is_finished(folder: Path, kind: str, digest: str) -> bool:
    """Whether ``folder`` holds the whole artifact with this digest."""
    try:
        return read_manifest(folder, kind).digest == digest
    except UserError:
        return False


def partial_folder(folder: Path) -> Path:
    """The temporary sibling under which ``folder`` is written."""
    return folder.with_name(f".{folder.name}.partial")


@contextmanager
def writing(folder: Path, keep_partial: bool = False) -> Iterator[Path]:
    """Yields a temporary sibling of ``folder`` that takes its name when the block succeeds.

    Args:
        folder: Where the artifact will stand. An earlier one there is replaced.
        keep_partial: Keep the temporary folder when the block fails, and go on in it next time:
            for long steps that resume. Otherwise it is removed.

    Yields:
        The temporary folder, created.

    Raises:
        UserError: If the folder cannot be written (read-only, disk full).
    """
    partial = partial_folder(folder)
    try:
        with write_failures_named(folder):
            if not keep_partial and partial.exists():
                shutil.rmtree(partial)
            partial.mkdir(parents=True, exist_ok=True)
            yield partial
            _take_place(partial, folder)
    finally:
        if not keep_partial:
            shutil.rmtree(partial, ignore_errors=True)


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


@dataclass(frozen=True)
class Artifact:
    """A finished folder and its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """Identity of the content."""
        return self.manifest.digest

    @property
    def seconds(self) -> float:
        """How long it took to make."""
        return float(self.manifest.counts["seconds"])


def build(
    folder: Path,
    kind: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    make: Callable[[Path], Mapping[str, Any] | None],
    resumable: bool = False,
) -> Artifact:
    """Returns the artifact of this recipe, made now unless ``folder`` already holds it.

    Of several processes that want it at once one makes it, and the others wait for it.

    Args:
        folder: Where the artifact stands.
        kind: What it holds.
        settings: JSON-serialisable settings that shape it.
        inputs: Digests of what it is made from.
        make: Writes the content into a folder and returns counts for the manifest.
        resumable: Whether ``make`` goes on in what a failed attempt left in the folder.
    """
    digest = digest_of(kind, settings, inputs)
    if not is_finished(folder, kind, digest):
        lock = folder.with_name(f".{folder.name}.lock")
        waiting_for = f"{kind}: another process makes {folder}"
        with write_failures_named(folder), locked(lock, waiting_for):
            if not is_finished(folder, kind, digest):
                return _make(
                    folder, Manifest(kind, digest, dict(settings), dict(inputs)), make, resumable
                )
    _log.info("%s: done before", kind)
    return Artifact(folder, read_manifest(folder, kind))


def _make(
    folder: Path,
    recipe: Manifest,
    make: Callable[[Path], Mapping[str, Any] | None],
    resumable: bool,
) -> Artifact:
    started = time.perf_counter()
    with writing(folder, keep_partial=resumable) as partial:
        counts = dict(make(partial) or {})
        counts["seconds"] = round(time.perf_counter() - started, 3)
        manifest = replace(recipe, counts=counts)
        manifest.write(partial)
    return Artifact(folder, manifest)


def _take_place(partial: Path, folder: Path) -> None:
    if folder.exists():
        replaced = folder.with_name(f".{folder.name}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        folder.rename(replaced)
        partial.rename(folder)
        shutil.rmtree(replaced)
    else:
        partial.rename(folder)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON so that readers see the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w") as file:
        json.dump(content, file, indent=2, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
