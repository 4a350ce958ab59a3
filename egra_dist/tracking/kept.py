"""The record of a run beyond its folder: with it another folder goes on in the same MLflow runs."""

import shutil
import tempfile
from pathlib import Path

from egra_dist.storage import Storage, attempt
from egra_dist.tracking.client import SQLITE_FILE, snapshot
from egra_dist.tracking.ledger import LEDGER

_SMALL_FILES = ("config.yaml", "metrics.json", LEDGER)


def fetch_record(storage: Storage, folder: Path) -> None:
    """Gets what a run folder lacks of its record.

    Raises:
        UserError: If the storage cannot be read.
    """
    for name in (LEDGER, SQLITE_FILE):
        path = folder / name
        content = None if path.exists() else storage.read(name)
        if content is not None:
            path.write_bytes(content)


def push_record(storage: Storage, folder: Path) -> None:
    """Keeps settings, figures, and the record in MLflow as far as it is in the run folder."""
    with tempfile.TemporaryDirectory() as name:
        copies = Path(name)
        for file in _SMALL_FILES:
            if (folder / file).exists():
                shutil.copy(folder / file, copies)
        if (folder / SQLITE_FILE).exists():
            snapshot(folder / SQLITE_FILE, copies / SQLITE_FILE)
        attempt(lambda: storage.push(copies, copies.iterdir()))
