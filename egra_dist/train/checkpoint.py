"""Checkpoints by ``torch.distributed.checkpoint``: sharded, committed by one small file.

A checkpoint folder counts only once ``state.json`` names it: that file is replaced in one piece
after every rank has written. Tables and their optimizer state are saved as sharded tensors, so
that they load on another number of workers.
"""

import json
import logging
import shutil
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn

from egra_dist.artifact import write_json
from egra_dist.errors import UserError
from egra_dist.model.tables import ITEM, USER, EmbeddingTables
from egra_dist.train.optimizers import Optimizers

_STATE_FILE = "state.json"
_log = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """Where a training stands.

    Attributes:
        epoch: Epochs done.
        step: Optimisation steps done, over all epochs; drives the alignment ramp.
        step_of_epoch: Those of them that belong to the epoch that is not done.
        best_score: Best validation score so far.
        best_epoch: The epoch after which it was reached.
        evaluations_since_best: Evaluations without a better score.
        is_finished: Whether the training has ended, early or not.
    """

    epoch: int = 0
    step: int = 0
    step_of_epoch: int = 0
    best_score: float = float("-inf")
    best_epoch: int = 0
    evaluations_since_best: int = 0
    is_finished: bool = False


class Checkpoints:
    """The last and the best state of one training.

    Args:
        folder: Where the checkpoints of this training live; shared by all ranks.
        tables: The sharded tables.
        model: The dense parameters.
        optimizers: Optimizers of both.
    """

    def __init__(
        self, folder: Path, tables: EmbeddingTables, model: nn.Module, optimizers: Optimizers
    ) -> None:
        self._folder = folder
        optimizers.materialize()
        self._content = _content(tables, model, optimizers)
        self._names: dict[str, str] = {}

    def resume(self) -> TrainingState:
        """Loads the last committed state; a new one where there is none."""
        path = self._folder / _STATE_FILE
        if not path.exists():
            return TrainingState()
        committed = json.loads(path.read_text())
        self._names = committed["checkpoints"]
        self._load(self._names["last"])
        state = TrainingState(**committed["training"])
        _log.info("resumed after epoch %d, step %d", state.epoch, state.step)
        return state

    def save(self, state: TrainingState, is_best: bool) -> None:
        """Writes a checkpoint, then commits it; earlier ones that are not the best are removed."""
        name = f"step-{state.step:09d}-of-{dist.get_world_size()}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.save(self._content, checkpoint_id=self._folder / name)
        self._names["last"] = name
        if is_best or "best" not in self._names:
            self._names["best"] = name
        if dist.get_rank() == 0:
            write_json(
                self._folder / _STATE_FILE,
                {"training": asdict(state), "checkpoints": self._names},
            )
            self._remove_others()

    def load_best(self) -> None:
        """Loads the state with the best validation score."""
        self._load(self._names["best"])

    def _load(self, name: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dcp.load(self._content, checkpoint_id=self._folder / name)
        except dcp.CheckpointException as error:
            reasons = "; ".join(str(failure[0]) for failure in error.failures.values())
            raise UserError(f"{self._folder / name}: cannot be loaded: {reasons}") from error

    def _remove_others(self) -> None:
        for path in self._folder.glob("step-*"):
            if path.name not in self._names.values():
                shutil.rmtree(path, ignore_errors=True)


def _content(tables: EmbeddingTables, model: nn.Module, optimizers: Optimizers) -> dict[str, Any]:
    """Everything that a checkpoint holds, as tensors that are saved from and loaded into."""
    return {
        "tables": tables.sharded_tensors(),
        "table_optimizer": {
            table: {
                name: tables.shard_like(table, value) if value.dim() else value
                for name, value in optimizers.table_state(table).items()
            }
            for table in (USER, ITEM)
        },
        "dense": model.state_dict(),
        "dense_optimizer": {
            str(position): state for position, state in enumerate(optimizers.dense_state())
        },
    }
