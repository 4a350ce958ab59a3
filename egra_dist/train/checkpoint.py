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
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn

from egra_dist.errors import UserError
from egra_dist.model.tables import ITEM, USER, EmbeddingTables
from egra_dist.storage import Storage
from egra_dist.train.commit import COMMIT, Commit, Entry, Identity, TrainingState
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
        optimizers.materialize()
        self._live = _content(tables, model, optimizers, lambda tensor: tensor)
        self._copies = _Copies()
        self._copied = _content(tables, model, optimizers, self._copies)
        identity = Identity(dict(keeping.made_from), _shapes(self._live), keeping.run_id)
        self._commit = Commit(identity)
        self._group = dist.new_group(backend="gloo")  # its collectives run beside the training's
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: tuple[Future[str | None], bool] | None = None
        self._stored: set[str] = set()
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
        for entry in reversed(found.kept):
            failure = self._load(entry.name)
            if failure is None:
                state = deepcopy(entry.training)
                _log.info("resumed after epoch %d, step %d", state.epoch, state.step)
                return state
            self._warn(f"{self._folder / entry.name}: cannot be loaded: {failure}")
        raise UserError(f"{self._folder}: none of its checkpoints can be loaded")

    def save(self, state: TrainingState, is_best: bool) -> None:
        """Copies the state and begins to write it; the one before is committed by then.

        Raises:
            UserError: If the best state could not be written.
        """
        self.wait()
        self._copies.refresh()
        entry = Entry(f"step-{state.step:09d}-of-{dist.get_world_size()}", deepcopy(state))
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
            raise UserError(f"{self._folder / best.name}: cannot be loaded: {failure}")

    def _write(self, entry: Entry, is_best: bool) -> str | None:
        """Writes the copies and commits; returns why not, the same on every rank."""
        is_first = dist.get_rank() == 0
        if is_first and entry.name not in self._commit.names:  # a process that died left it
            shutil.rmtree(self._folder / entry.name, ignore_errors=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dcp.save(
                    self._copied,
                    checkpoint_id=self._folder / entry.name,
                    process_group=self._group,
                )
        except dcp.CheckpointException as error:
            if is_first:
                shutil.rmtree(self._folder / entry.name, ignore_errors=True)
            return _reasons(error)
        after = self._commit.added(entry, is_best, self._keeping.num_kept)
        failure = _attempt(lambda: after.write(self._folder)) if is_first else None
        failures = [failure]
        dist.broadcast_object_list(failures, src=0, group=self._group)
        if failures[0] is None:
            self._commit = after
            if is_first:
                self._remove_others()
            self._copy_to_storage()
        return failures[0]

    def _copy_to_storage(self) -> None:
        """Each rank copies what it wrote; what did not arrive is tried again with the next."""
        storage = self._keeping.storage
        if storage is None:
            return
        missing = self._commit.names - self._stored
        files = [path for name in missing for path in self._own_files(self._folder / name)]
        failures: list[str | None] = [None] * dist.get_world_size()
        failure = _attempt(lambda: storage.push(self._folder, files))
        dist.all_gather_object(failures, failure, group=self._group)
        reasons = set(filter(None, failures))
        if not reasons:
            self._stored |= missing
            if dist.get_rank() == 0:
                reasons = set(filter(None, [_attempt(lambda: self._commit_storage(storage))]))
        if reasons:
            self._warn(f"a checkpoint could not be copied: {'; '.join(sorted(reasons))}")

    def _own_files(self, folder: Path) -> Iterator[Path]:
        """The files ``__RANK_N.distcp`` of this rank, and of those that are no more."""
        own, num_ranks = dist.get_rank(), dist.get_world_size()
        for path in folder.glob("__*.distcp"):
            if int(path.name.split("_")[2]) % num_ranks == own:
                yield path
        if own == 0:
            yield folder / ".metadata"

    def _commit_storage(self, storage: Storage) -> None:
        storage.push(self._folder, [self._folder / COMMIT])
        storage.remove_others(self._commit.names)

    def _load(self, name: str) -> str | None:
        """Loads a checkpoint into the live tensors; returns why not, the same on every rank."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dcp.load(self._live, storage_reader=SafeReader(self._folder / name))
        except dcp.CheckpointException as error:
            return _reasons(error)
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


class _Copies:
    """Copies of tensors in the CPU's memory, which stay as they are while the training goes on."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def __call__(self, live: Tensor) -> Tensor:
        copy = torch.empty_like(live, device="cpu")
        self._pairs.append((live, copy))
        return copy

    @torch.no_grad()
    def refresh(self) -> None:
        """Takes the values of now."""
        for live, copy in self._pairs:
            copy.copy_(live)


def _content(
    tables: EmbeddingTables,
    model: nn.Module,
    optimizers: Optimizers,
    of: Callable[[Tensor], Tensor],
) -> dict[str, Any]:
    """Everything that a checkpoint holds: ``of`` each tensor, those of tables as shards."""

    def shard(table: str, value: Tensor) -> Any:
        return tables.shard_like(table, of(value)) if value.dim() else of(value)

    return {
        "tables": {table: shard(table, tables.local(table).detach()) for table in (USER, ITEM)},
        "table_optimizer": {
            table: {name: shard(table, v) for name, v in optimizers.table_state(table).items()}
            for table in (USER, ITEM)
        },
        "dense": {name: of(value) for name, value in model.state_dict().items()},
        "dense_optimizer": {
            str(position): {name: of(value) for name, value in state.items()}
            for position, state in enumerate(optimizers.dense_state())
        },
    }


def _shapes(content: Mapping[str, Any]) -> dict[str, list[int]]:
    return {name: list(value.size()) for name, value in _leaves(content)}


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _attempt(write: Callable[[], object]) -> str | None:
    try:
        write()
    except (OSError, UserError) as error:
        return str(error)
    return None


def _reasons(error: dcp.CheckpointException) -> str:
    """What went wrong on any rank, in one line."""
    causes = [failure[0] for failure in error.failures.values()]
    return "; ".join(sorted({" ".join(str(cause).split()) for cause in causes}))
