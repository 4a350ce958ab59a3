"""The training loop, to be read from top to bottom.

The same for every model, every number of ranks and both ways to propagate: propagate to the rows
of a global batch, take its losses, sum the gradients of the dense parameters, update; after an
epoch evaluate on validation, keep the state, and stop when nothing gets better.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from egra_dist.config import TrainingSettings
from egra_dist.model.gather import sum_over_ranks
from egra_dist.model.recommender import Recommender
from egra_dist.model.tables import EmbeddingTables
from egra_dist.train.agreement import Agreement, Ending
from egra_dist.train.checkpoint import Checkpoints
from egra_dist.train.commit import TrainingState
from egra_dist.train.optimizers import Optimizers
from egra_dist.train.propagation import Propagation, Vectors
from egra_dist.train.report import Reporter


@dataclass(frozen=True)
class Parts:
    """What a training is made of; each a plain component."""

    settings: TrainingSettings
    tables: EmbeddingTables
    model: Recommender
    optimizers: Optimizers
    propagation: Propagation
    checkpoints: Checkpoints
    validate: Callable[[Vectors], dict[str, float]]
    report: Reporter
    agreement: Agreement
    beat: Callable[[int], object] = lambda step: None


class EndedError(Exception):
    """The training was told to end before it is finished; what it had is saved."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending = ending

    def __str__(self) -> str:
        return f"{self.ending.name.lower()} before it was finished; its state is saved"


def train(parts: Parts) -> TrainingState:
    """Trains until validation stops getting better; the best state is loaded at the end.

    Returns:
        The final state; ``best_epoch`` tells which one is loaded.

    Raises:
        EndedError: If it is told to end before.
    """
    settings = parts.settings
    state = parts.checkpoints.resume()
    while not state.is_finished:
        parts.optimizers.set_epoch(state.epoch, state.step)
        parts.model.start_epoch(state.epoch)
        parts.report.start_epoch(state)
        for batch in parts.propagation.epoch(state.epoch, state.step_of_epoch):
            rows = parts.propagation.rows(batch)
            losses = parts.model.losses(rows, batch.shares, state.step)
            losses.total.backward()
            _sum_gradients(parts.optimizers.dense_parameters)
            parts.optimizers.step()
            parts.report.step(state, losses)
            state.step += 1
            state.step_of_epoch += 1
            parts.beat(state.step)
            if state.step == settings.max_steps:
                break
            _save_and_end(parts, state)
        state.epoch += 1
        state.step_of_epoch = 0
        parts.report.end_epoch(state)
        is_last = state.epoch == settings.max_epochs or state.step == settings.max_steps
        if is_last or state.epoch % settings.evaluate_every == 0:
            is_best = _evaluate(parts, state)
            state.is_finished = is_last or state.evaluations_since_best >= settings.patience
            parts.checkpoints.save(state, is_best)
            parts.beat(state.step)
    parts.checkpoints.load_best()
    return state


def _save_and_end(parts: Parts, state: TrainingState) -> None:
    """After a step: a checkpoint where one is due, and the end where the training is told to."""
    verdict = parts.agreement.after(state.step)
    if verdict.saves or verdict.ending:
        parts.checkpoints.save(state, is_best=False)
    if verdict.ending:
        parts.checkpoints.wait()
        raise EndedError(verdict.ending)


def _evaluate(parts: Parts, state: TrainingState) -> bool:
    """Notes the validation score; whether it is the best so far."""
    metrics = parts.validate(parts.propagation.infer())
    score = metrics[f"valid/{parts.settings.metric}"]
    is_best = score > state.best_score
    if is_best:
        state.best_score, state.best_epoch = score, state.epoch
    state.evaluations_since_best = 0 if is_best else state.evaluations_since_best + 1
    parts.report.evaluation(state, metrics)
    return is_best


def _sum_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Adds up what the ranks' shares of the batch contribute to the replicated parameters."""
    if dist.get_world_size() == 1 or not parameters:
        return
    flat = torch.cat([_gradient(parameter).flatten() for parameter in parameters])
    sum_over_ranks(flat)
    for parameter, total in zip(
        parameters, flat.split([parameter.numel() for parameter in parameters]), strict=True
    ):
        parameter.grad = total.view_as(parameter)


def _gradient(parameter: torch.nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
