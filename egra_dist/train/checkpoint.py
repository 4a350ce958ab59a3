"""Checkpoints by ``torch.distributed.checkpoint``: sharded, written in the background, committed.

Tables and their optimizer state are saved as sharded tensors, so that they load on another number
of workers. The training waits for a copy in memory alone; a thread writes it while the next steps
are done, and ``state.json`` names the checkpoint when every rank has written
(:mod:`egra_dist.train.commit`).
"""

import logging
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn

from egra_dist.errors import UserError
from egra_dist.model.tables import EmbeddingTables
from egra_dist.storage import Storage
from egra_dist.train.commit import Commit, Entry, Identity, TrainingState
from egra_dist.train.content import Copies, content, shapes
from egra_dist.train.copying import StorageCopies, attempt
from egra_dist.train.dcp_reader import SafeReader
from egra_dist.train.optimizers import Optimizers

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keeping:
    """How checkpoints are kept, and what they belong to.

    Attributes:
        folder: Where the checkpoints of this training live; shared by all ranks.
        made_from: Digests of what is trained on, by name.
        run_id: The MLflow run.
        num_kept: The last checkpoints that are kept, beside the best.
        storage: Where they are copied to, if anywhere.
        warn: Tells the user.
    """

    folder: Path
    made_from: Mapping[str, str]
    run_id: str | None = None
    num_kept: int = 2
    storage: Storage | None = None
    warn: Callable[[str], object] = _log.warning


class Checkpoints:
    """The last states of one training, and its best. Every method is a collective call.

    Args:
        keeping: Where, how many, and of what.
        tables: The sharded tables.
        model: The dense parameters.
        optimizers: Optimizers of both.
    """

    def __init__(
        self, keeping: Keeping, tables: EmbeddingTables, model: nn.Module, optimizers: Optimizers
    ) -> None:
        self._keeping = keeping
        self._folder = keeping.folder
        self._tables = tables
        optimizers.materialize()
        self._live = content(tables, model, optimizers, lambda tensor: tensor)
        self._copies = Copies()
        self._copied = content(tables, model, optimizers, self._copies)
        identity = Identity(dict(keeping.made_from), shapes(self._live), keeping.run_id)
        self._commit = Commit(identity)
        self._group = dist.new_group(backend="gloo")  # its collectives run beside the training's
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: tuple[Future[str | None], bool] | None = None
        storage = keeping.storage
        self._storage_copies = (
            StorageCopies(self._folder, storage, self._group) if storage else None
        )
        self._last_save = time.monotonic()

    @property
    def seconds_since_save(self) -> float:
        """Time since the last checkpoint was begun."""
        return time.monotonic() - self._last_save

    def resume(self) -> TrainingState:
        """Loads the last state that can be read; a new one where none was committed.

        Raises:
            UserError: If the checkpoints belong to another training, or none can be read.
        """
        found = self._from_rank_0(lambda: Commit.read(self._folder))
        if found is None:
            return TrainingState()
        self._commit.identity.check(found.identity, self._folder)
        self._commit = replace(found, identity=self._commit.identity)
        for entry in found.newest_first:
            failure = self._load(entry.name)
            if failure is None:
                state = replace(entry.training)
                _log.info("resumed after epoch %d, step %d", state.epoch, state.step)
                return state
            self._warn(f"{self._folder / entry.name}: cannot be loaded: {failure}")
            self._commit = self._commit.without(entry)
        raise UserError(f"{self._folder}: none of its checkpoints can be loaded")

    def save(self, state: TrainingState, is_best: bool) -> None:
        """Copies the state and begins to write it; the one before is committed by then.

        Raises:
            UserError: If the best state could not be written.
        """
        self.wait()
        self._tables.flush()
        self._copies.refresh()
        entry = Entry(f"step-{state.step:09d}-of-{dist.get_world_size()}", replace(state))
        self._writing = self._thread.submit(self._write, entry, is_best), is_best
        self._last_save = time.monotonic()

    def wait(self) -> None:
        """Waits until what was begun is committed.

        A checkpoint that could not be written (a full disk) is missed with a warning: the ones
        before stay good, and the next one is tried again. Without the best state, however, the
        training would be for nothing.

        Raises:
            UserError: If the best state could not be written.
        """
        if self._writing is None:
            return
        future, is_best = self._writing
        self._writing = None
        failure = future.result()
        if failure is None:
            return
        message = f"{self._folder}: a checkpoint could not be written: {failure}"
        if is_best:
            raise UserError(f"{message}; the same command goes on from the one before")
        self._warn(f"{message}; training goes on")

    def load_best(self) -> None:
        """Loads the state with the best validation score.

        Raises:
            UserError: If it cannot be read.
        """
        self.wait()
        best = self._from_rank_0(lambda: self._commit.best)
        assert best is not None, "the first evaluation leaves a best state"
        failure = self._load(best.name)
        if failure is not None:
            raise UserError(
                f"{self._folder / best.name}: cannot be loaded: {failure}; "
                f"with {self._folder} removed the same command trains anew"
            )

    def _write(self, entry: Entry, is_best: bool) -> str | None:
        """Writes the copies and commits; returns why not, the same on every rank."""
        if entry.name not in self._commit.last_names:  # else the step has just been written
            failure = self._write_tensors(self._folder / entry.name)
            if failure is not None:
                return failure
            if self._storage_copies:  # an earlier one of that name may have been damaged
                self._storage_copies.forget(entry.name)
        after = self._commit.added(entry, is_best, self._keeping.num_kept)
        is_first = dist.get_rank() == 0
        failures = [attempt(lambda: after.write(self._folder)) if is_first else None]
        dist.broadcast_object_list(failures, src=0, group=self._group)
        if failures[0] is None:
            self._commit = after
            if is_first:
                self._remove_others()
            self._copy()
        return failures[0]

    def _write_tensors(self, folder: Path) -> str | None:
        is_first = dist.get_rank() == 0
        if is_first:  # a process that died may have left a part
            shutil.rmtree(folder, ignore_errors=True)
        dist.barrier(self._group)  # the others make the folder, too: not while it is removed
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dcp.save(self._copied, checkpoint_id=folder, process_group=self._group)
        except dcp.CheckpointException as error:
            if is_first:
                shutil.rmtree(folder, ignore_errors=True)
            return _reasons(error)
        return None

    def _copy(self) -> None:
        failure = self._storage_copies.follow(self._commit.names) if self._storage_copies else None
        if failure is not None:
            self._warn(f"a checkpoint could not be copied: {failure}")

    def _load(self, name: str) -> str | None:
        """Loads a checkpoint into the live tensors; returns why not, the same on every rank."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dcp.load(self._live, storage_reader=SafeReader(self._folder / name))
        except dcp.CheckpointException as error:
            return _reasons(error)
        self._tables.purge()
        return None

    def _from_rank_0(self, read: Callable[[], Any]) -> Any:
        """What rank 0 reads, or the user's mistake that it meets, on every rank."""
        answer: list[Any] = [None]
        if dist.get_rank() == 0:
            try:
                answer = [read()]
            except UserError as error:
                answer = [error]
        dist.broadcast_object_list(answer, src=0, group=self._group)
        if isinstance(answer[0], UserError):
            raise answer[0]
        return answer[0]

    def _warn(self, message: str) -> None:
        if dist.get_rank() == 0:
            self._keeping.warn(message)

    def _remove_others(self) -> None:
        for path in self._folder.glob("step-*"):
            if path.name not in self._commit.names:
                shutil.rmtree(path, ignore_errors=True)


def _reasons(error: dcp.CheckpointException) -> str:
    """What went wrong on any rank, in one line."""
    causes = [failure[0] for failure in error.failures.values()]
    return "; ".join(sorted({" ".join(str(cause).split()) for cause in causes}))
