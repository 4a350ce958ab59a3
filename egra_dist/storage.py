"""Artifacts beyond this machine: a folder on any file system that pyarrow knows.

    s3://bucket/path?region=...&endpoint_override=...   gs://bucket/path   hdfs://host/path
    file:///path   /path

Artifacts are made, and memory-mapped, in local folders; here they are kept and come from. What
stands here is whole or counts as absent, as locally: its manifest is written last.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from egra_dist.artifact import Artifact, partial_folder
from egra_dist.errors import UserError
from egra_dist.lock import locked
from egra_dist.manifest import MANIFEST, parse_manifest

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

_log = logging.getLogger(__name__)
CHECKPOINTS = "checkpoints"
"""The folder of a training's artifact that is there before it is finished."""
_NUM_THREADS = 8
_CHUNK = 8 << 20
_OBJECT_STORES = {"s3", "gcs", "abfs"}


@dataclass(frozen=True)
class Storage:
    """A folder anywhere. Picklable: each process connects by itself.

    Attributes:
        uri: Where it is. Credentials come from the environment, not from here.
        prefix: A folder below it; all names are relative to that.

    Raises:
        UserError: If the URI holds credentials, or is of no kind that is known.
    """

    uri: str
    prefix: str = ""

    def __post_init__(self) -> None:
        parts = urlsplit(self.uri)
        if parts.username or parts.password:
            raise UserError(
                f"{parts.scheme}://...@{parts.hostname}{parts.path}: credentials have no place in "
                "a URI, which is logged; give them in the environment, e.g. AWS_ACCESS_KEY_ID"
            )

    def at(self, name: str) -> "Storage":
        """A folder of it."""
        return replace(self, prefix=_join(self.prefix, name))

    def digest(self) -> str | None:
        """Digest of the artifact that stands here; None if there is no whole one."""
        content = self.read(MANIFEST)
        return None if content is None else parse_manifest(content, self._where(MANIFEST)).digest

    def read(self, name: str) -> bytes | None:
        """Content of a small file; None if there is none."""
        with self._answering(name):
            try:
                with self._files.open_input_stream(_join(self.prefix, name)) as stream:
                    return stream.read()
            except FileNotFoundError:
                return None

    def push(self, folder: Path, files: Iterable[Path]) -> None:
        """Copies files here; a manifest last, so that it vouches for all.

        Args:
            folder: A local folder.
            files: Which of its files.

        Raises:
            UserError: If they cannot be written.
        """
        paths = [path.relative_to(folder).as_posix() for path in files]
        with self._answering(""):
            _in_threads(partial(self._upload, folder), [p for p in paths if p != MANIFEST])
            if MANIFEST in paths:
                self._upload(folder, MANIFEST)

    def fetch(self, folder: Path, digest: str | None = None) -> bool:
        """Copies all that stands here into a local folder, which is whole or absent.

        Of several processes of a machine one copies and the others wait.

        Args:
            folder: Where it goes; left alone if it is there.
            digest: Of the artifact that is wanted; anything when not given.

        Returns:
            Whether the folder is there now.

        Raises:
            UserError: If it cannot be read, or the folder cannot be written.
        """
        lock = folder.with_name(f".{folder.name}.fetch.lock")
        with locked(lock, f"{folder}: another process fetches it"):
            if folder.exists():
                return True
            if digest is not None and self.digest() != digest:
                return False
            with self._answering(""):
                files = list(self._list())
                if files:
                    _log.info("fetching %s", self._where(""))
                    self._download(files, folder)
        return bool(files)

    def remove_others(self, kept: set[str]) -> None:
        """Removes the folders that are not to be kept."""
        from pyarrow.fs import FileSelector, FileType

        with self._answering(""):
            selector = FileSelector(self.prefix, allow_not_found=True)
            for info in self._files.get_file_info(selector):
                if info.type == FileType.Directory and info.base_name not in kept:
                    self._files.delete_dir(info.path)

    @cached_property
    def _files(self) -> Any:
        from pyarrow.fs import FileSystem, SubTreeFileSystem

        os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")  # asked, it takes seconds
        try:
            system, path = FileSystem.from_uri(self.uri)
        except (ValueError, OSError) as error:
            raise UserError(f"{self.uri}: cannot be opened: {_line(error)}") from None
        return SubTreeFileSystem(path, system)

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "prefix": self.prefix}  # a connection does not travel

    def _list(self) -> Iterator["FileInfo"]:
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self.prefix, recursive=True, allow_not_found=True)
        for info in self._files.get_file_info(selector):
            if info.type == FileType.File:
                if ".." in PurePosixPath(info.path).parts:
                    raise UserError(f"{self._where(info.base_name)}: is outside of its folder")
                yield info

    def _download(self, files: list["FileInfo"], folder: Path) -> None:
        unfinished = folder.with_name(f".{folder.name}.fetching")
        shutil.rmtree(unfinished, ignore_errors=True)

        def copy(info: "FileInfo") -> None:
            path = unfinished / PurePosixPath(info.path).relative_to(self.prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._files.open_input_stream(info.path) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, _CHUNK)

        try:
            _in_threads(copy, files)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _upload(self, folder: Path, path: str) -> None:
        name = _join(self.prefix, path)
        if self._files.base_fs.type_name not in _OBJECT_STORES:
            self._files.create_dir(str(PurePosixPath(name).parent), recursive=True)
        with (folder / path).open("rb") as source, self._files.open_output_stream(name) as target:
            shutil.copyfileobj(source, target, _CHUNK)

    def _where(self, name: str) -> str:
        return _join(self.uri.split("?")[0].rstrip("/"), self.prefix, name)

    @contextmanager
    def _answering(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self._where(name)}: {_line(error)}") from None


def _join(*names: str) -> str:
    return "/".join(filter(None, names))


def is_uri(text: str) -> bool:
    """Whether it names something beyond the local file system."""
    return "://" in text


def fetch_artifact(kept: Storage, folder: Path, digest: str, resumable: bool) -> None:
    """Gets an artifact from where it is kept; else, of a training, its checkpoints.

    Args:
        kept: Where it would be.
        folder: Where it is to stand.
        digest: Which one is wanted.
        resumable: Whether the stage goes on in what is not finished.

    Raises:
        UserError: If it is there and cannot be read.
    """
    if kept.fetch(folder, digest) or not resumable:
        return
    checkpoints = partial_folder(folder) / CHECKPOINTS
    checkpoints.parent.mkdir(parents=True, exist_ok=True)
    kept.at(CHECKPOINTS).fetch(checkpoints)


def push_artifact(kept: Storage, artifact: Artifact) -> None:
    """Keeps a finished artifact, unless it is there; its checkpoints were copied when written."""

    def push() -> None:
        if kept.digest() != artifact.digest:
            files = [path for path in artifact.folder.rglob("*") if path.is_file()]
            own = [p for p in files if p.relative_to(artifact.folder).parts[0] != CHECKPOINTS]
            kept.push(artifact.folder, own)

    attempt(push)


def attempt(push: Callable[[], object]) -> None:
    """What cannot be kept elsewhere now is warned of; the same command tries again."""
    try:
        push()
    except UserError as error:
        _log.warning("not copied: %s", error)


def _in_threads(work: Callable[[Any], object], items: Iterable[Any]) -> None:
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        for _ in threads.map(work, items):
            pass


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
