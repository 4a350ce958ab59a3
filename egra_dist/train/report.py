"""What a training tells while it runs: metrics to the recorder, one live line to the driver."""

import time
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
import torch.distributed as dist

from egra_dist.config import TrainingSettings
from egra_dist.model import alignment
from egra_dist.model.batch import Losses
from egra_dist.model.exchange import traffic
from egra_dist.tracking.system import peak_memory
from egra_dist.train.commit import TrainingState


class Recorder(Protocol):
    """Takes metrics by step and writes them in the background."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records named values at a global step."""

    def close(self) -> object:
        """Delivers what is still on its way."""


class ProgressLine(Protocol):
    """Shows how far the work is."""

    def update(self, done: int, total: int | None = None, **fields: float | int | str) -> None:
        """Tells the steps done and values to show beside them."""


class Reporter:
    """Reports for all ranks; only rank 0 has a recorder and a progress line.

    Args:
        settings: The training.
        steps_per_epoch: Global batches per epoch.
        num_triplets: Triplets per epoch.
        recorder: None on the other ranks.
        line: None on the other ranks.
        every_steps: Steps between two records of the losses.
        tables: What is recorded of the tables beside them; a collective call.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        steps_per_epoch: int,
        num_triplets: int,
        recorder: Recorder | None,
        line: ProgressLine | None,
        every_steps: int,
        tables: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self._settings = settings
        self._num_triplets = num_triplets
        steps = steps_per_epoch * settings.max_epochs
        self._total = min(steps, settings.max_steps or steps)
        self._recorder = recorder
        self._line = line
        self._every_steps = every_steps
        self._tables = tables
        # In the order of their importance: a narrow terminal cuts the last ones.
        self._order = ("epoch", "loss", "lambda", settings.metric, "best", "triplets_per_second")
        self._fields: dict[str, float | int | str] = {}
        self._epoch_started = time.perf_counter()
        self._first_step = 0
        self._received = 0

    def start_epoch(self, state: TrainingState) -> None:
        """Starts the clock of an epoch."""
        self._epoch_started = time.perf_counter()
        self._first_step, self._received = state.step, traffic.received
        self._fields["epoch"] = state.epoch + 1

    def step(self, state: TrainingState, losses: Losses) -> None:
        """Reports the losses of a step, every few steps; a collective call."""
        if state.step % self._every_steps == 0:
            values = torch.stack(list(losses.named().values()))
            if dist.get_world_size() > 1:
                dist.all_reduce(values)
            strength = alignment.strength(state.step, self._settings.alignment)
            metrics = dict(
                zip((f"train/loss_{n}" for n in losses.named()), values.tolist(), strict=True)
            )
            found = {**metrics, "alignment/lambda": strength, **self._tables()}
            self._record(state.step, found)
            self._fields |= {"loss": metrics["train/loss_total"], "lambda": strength}
        self._show(state)

    def end_epoch(self, state: TrainingState) -> None:
        """Reports how fast an epoch went."""
        seconds = time.perf_counter() - self._epoch_started
        rate = self._num_triplets / seconds
        received = (traffic.received - self._received) / max(1, state.step - self._first_step)
        self._fields["triplets_per_second"] = round(rate)
        self._record(
            state.step,
            {
                "train/epoch": state.epoch,
                "train/epoch_seconds": seconds,
                "train/triplets_per_second": rate,
                "system/received_mib_per_step": received / 2**20,
                **peak_memory(),
            },
        )

    def evaluation(self, state: TrainingState, metrics: Mapping[str, float]) -> None:
        """Reports validation metrics and alignment statistics."""
        self._record(state.step, metrics)
        name = self._settings.metric
        self._fields |= {name: metrics[f"valid/{name}"], "best": state.best_score}
        self._show(state)

    def close(self) -> None:
        """Delivers what is still on its way to the recorder."""
        if self._recorder:
            self._recorder.close()

    def _record(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._recorder:
            self._recorder.log(step, metrics)

    def _show(self, state: TrainingState) -> None:
        if self._line:
            fields = {name: self._fields[name] for name in self._order if name in self._fields}
            self._line.update(state.step, self._total, **fields)
