"""Folders that are either whole or absent, and know what they were made from.

Every step of the pipeline writes one artifact: a folder with a ``manifest.json`` (schema version,
kind, counts, settings, and the digests of its inputs). It is written under a temporary name and
renamed when whole, so that a step that died leaves nothing that looks finished, and a step whose
digest is already on disk is not run again.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from egra_dist.errors import UserError
from egra_dist.files import write_failures_named
from egra_dist.lock import locked
from egra_dist.manifest import Manifest, digest_of, read_manifest

_log = logging.getLogger(__name__)


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
