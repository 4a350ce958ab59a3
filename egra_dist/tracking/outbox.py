"""Files that are to become artifacts: they wait on disk until they have arrived."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from egra_dist.files import inside


class Outbox:
    """Files to upload, per run; usable from several threads.

    Args:
        folder: Where they wait: ``folder/<key>/<path of the artifact>``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def put(self, key: str, path: str, write: Callable[[Path], object]) -> None:
        """Adds a file.

        Args:
            key: Whose artifact it will be.
            path: Path of the artifact.
            write: Writes the file to the path it is given.
        """
        file = self._folder / key / path
        with self._lock:
            file.parent.mkdir(parents=True, exist_ok=True)
            write(file)

    def deliver(self, key: str, upload: Callable[[Path], object]) -> None:
        """Uploads what waits for a run; what ``upload`` fails on waits on.

        Args:
            key: Whose files.
            upload: Uploads a folder.

        Raises:
            UserError: If a link among them leads out of their folder: who receives a run folder
                and delivers it would upload files of their own.
        """
        waiting, leaving = self._folder / key, self._folder / f"{key}.leaving"
        for folder in (waiting, leaving):
            _refuse_links_out(self._folder, folder)
        with self._lock:
            if waiting.exists():
                shutil.copytree(waiting, leaving, dirs_exist_ok=True)
                shutil.rmtree(waiting)
        if leaving.exists():
            upload(leaving)
            shutil.rmtree(leaving)


def _refuse_links_out(outbox: Path, folder: Path) -> None:
    inside(outbox, folder)
    for path in folder.rglob("*"):
        inside(folder, path)
