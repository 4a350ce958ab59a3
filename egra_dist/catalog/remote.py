"""Catalogues that lie at a URI: fetched whole, once per machine, and read from there."""

from dataclasses import replace
from pathlib import Path

from egra_dist.artifact import is_finished
from egra_dist.catalog.catalog import KIND, Catalog
from egra_dist.errors import UserError
from egra_dist.manifest import MANIFEST
from egra_dist.storage import Storage, is_uri


def open_catalog(source: str | Path, cache: Path) -> Catalog:
    """Opens a catalogue, wherever it is.

    Args:
        source: Its folder, or its URI.
        cache: Where catalogues from URIs are kept, by their digests.

    Raises:
        UserError: If it is not there, or cannot be fetched.
    """
    if not is_uri(str(source)):
        return Catalog.open(Path(source))
    return replace(Catalog.open(fetch_catalog(str(source), cache)), uri=str(source))


def fetch_catalog(uri: str, cache: Path) -> Path:
    """The local folder of a catalogue that lies at a URI; fetched when it is not there.

    Args:
        uri: Its folder.
        cache: Where catalogues are kept, by their digests.

    Raises:
        UserError: If it is not there, or cannot be fetched.
    """
    storage = Storage(uri)
    digest = storage.digest()
    if digest is None:
        raise UserError(f"{uri.split('?')[0]}: not a {KIND} folder (it has no {MANIFEST})")
    if not digest.isalnum():  # it becomes the name of a folder
        raise UserError(f"{uri.split('?')[0]}/{MANIFEST}: {digest!r} is no digest")
    folder = cache / f"{KIND}-{digest}"
    if not is_finished(folder, KIND, digest):
        storage.fetch(folder, digest)
    return folder
