"""Copies committed checkpoints to a storage, each rank what it wrote."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch.distributed as dist

from egra_dist.errors import UserError
from egra_dist.storage import Storage
from egra_dist.train.commit import COMMIT

_FILE = re.compile(r"__(\d+)_\d+\.distcp")


class StorageCopies:
    """Keeps a storage as the checkpoint folder is.

    Args:
        folder: The checkpoints of a training.
        storage: Where they are copied to.
        group: Whose collectives are used.
    """

    def __init__(self, folder: Path, storage: Storage, group: dist.ProcessGroup) -> None:
        self._folder = folder
        self._storage = storage
        self._group = group
        self._copied: set[str] = set()

    def follow(self, names: set[str]) -> str | None:
        """Copies the checkpoints that are not there yet, then what names them; a collective call.

        What did not arrive is tried again by the next call.

        Args:
            names: The checkpoints that count.

        Returns:
            Why it could not be done; on the first rank at least.
        """
        missing = names - self._copied
        files = [path for name in missing for path in self._own_files(self._folder / name)]
        failures: list[str | None] = [None] * dist.get_world_size()
        failure = attempt(lambda: self._storage.push(self._folder, files))
        dist.all_gather_object(failures, failure, group=self._group)
        reasons = sorted(set(filter(None, failures)))
        if reasons:
            return "; ".join(reasons)
        self._copied |= missing
        return attempt(lambda: self._commit(names)) if dist.get_rank() == 0 else None

    def forget(self, name: str) -> None:
        """Notes that a checkpoint has been written anew, and has to be copied again."""
        self._copied.discard(name)

    def _own_files(self, folder: Path) -> Iterator[Path]:
        """What this rank wrote, and its share of what ranks wrote that are no more."""
        own, num_ranks = dist.get_rank(), dist.get_world_size()
        for path in folder.iterdir():
            match = _FILE.fullmatch(path.name)
            if match and int(match[1]) % num_ranks == own:
                yield path
        if own == 0:
            yield folder / ".metadata"

    def _commit(self, names: set[str]) -> None:
        self._storage.push(self._folder, [self._folder / COMMIT])
        self._storage.remove_others(names)


def attempt(write: Callable[[], object]) -> str | None:
    """Why something could not be written; None if it was."""
    try:
        write()
    except (OSError, UserError) as error:
        return str(error)
    return None
