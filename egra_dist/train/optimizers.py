"""Two optimizers, one for the sharded tables and one for the dense parameters."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from egra_dist.config import OptimizerSettings
from egra_dist.model.row_gradients import RowGradients, TableRows
from egra_dist.model.tables import FusedTables

State = dict[str, Tensor]
Groups = Sequence[RowGradients]
_ODD, _STRIDE = 0x79B1, 0x9E37
"""Numbers that spread the bits of a row, and columns, over all values of 16 bits."""
_OF_ROW, _OF_UPDATE, _MIXED = 0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB
"""Odd numbers that spread rows and updates over all values of 64 bits."""


class _TableOptimizer(torch.optim.Optimizer, ABC):
    """Updates every matrix ``[num_rows, dim]`` that has a gradient.

    Attributes:
        number: Of the next update; what it draws at random follows from it.
    """

    number = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update; of gradients of some rows, of those rows."""
        assert closure is None
        for group in self.param_groups:
            for table in group["params"]:
                state = self.state[table]
                if not state:
                    state.update(self._new_state(table))
                if table.grad is None:
                    self._update_rows(table, table.take_gradients(), state, group["lr"])
                else:
                    self._update(table, table.grad, state, group["lr"])
        self.number += 1

    @abstractmethod
    def _new_state(self, table: Tensor) -> State:
        """What is kept of a matrix between updates."""

    @abstractmethod
    def _update_rows(self, table: Tensor, groups: Groups, state: State, rate: float) -> None:
        """Updates rows; none is in two groups."""

    def _update(self, table: Tensor, gradient: Tensor, state: State, rate: float) -> None:
        """Updates all rows."""
        rows = torch.arange(len(table), device=table.device)
        self._update_rows(table, [RowGradients(rows, gradient)], state, rate)


class RowWiseAdagrad(_TableOptimizer):
    """Adagrad with one accumulator per row: the mean square of the row's gradients.

    The same update as FBGEMM's ``EXACT_ROWWISE_ADAGRAD``.

    Args:
        parameters: Matrices ``[num_rows, dim]``.
        lr: Learning rate.
        eps: Added to the root of the accumulator.
    """

    def __init__(self, parameters: Iterable[TableRows], lr: float, eps: float = 1e-8) -> None:
        super().__init__(parameters, {"lr": lr})
        self._eps = eps

    def _new_state(self, table: Tensor) -> State:
        return {"sum": torch.zeros(len(table), device=table.device)}

    def _update(self, table: Tensor, gradient: Tensor, state: State, rate: float) -> None:
        state["sum"] += gradient.square().mean(1)
        table -= (rate / (state["sum"].sqrt() + self._eps))[:, None] * gradient

    def _update_rows(self, table: Tensor, groups: Groups, state: State, rate: float) -> None:
        for group in groups:
            rows, values = group.rows, group.values
            squares = torch.linalg.vector_norm(values, dim=1).square_() / values.shape[1]
            own = state["sum"].index_select(0, rows).add_(squares)
            state["sum"].index_copy_(0, rows, own)
            scale = own.sqrt().add_(self._eps).reciprocal_().mul_(-rate)
            if table.dtype == torch.bfloat16:
                new = table.index_select(0, rows).float().addcmul_(scale[:, None], values)
                noise = noise_of(rows + cast("TableRows", table).first_row, self.number)
                table.index_copy_(0, rows, rounded_at_random(new, noise))
            else:
                # On a CPU a third of what index_add_ takes.
                table.scatter_add_(0, rows[:, None].expand_as(values), scale[:, None] * values)


def noise_of(rows: Tensor, number: int) -> Tensor:
    """What is drawn for rows in an update, whoever has them and whatever came before.

    So a training that goes on from a checkpoint, or on another number of workers, rounds as one
    that was not interrupted.

    Args:
        rows: Numbers in the whole table, ``int64 [num_rows]``.
        number: Of the update.

    Returns:
        ``int32 [num_rows]``.
    """
    mixed = (rows + 1) * _OF_ROW + ((number + 1) * _OF_UPDATE) % 2**63
    mixed = (mixed ^ (mixed >> 29)) * _MIXED
    return (mixed >> 32).to(torch.int32)


def rounded_at_random(values: Tensor, noise: Tensor) -> Tensor:
    """Rounds up or down, each the likelier the nearer, so that small updates add up.

    Args:
        values: ``float32 [num_rows, dim]``.
        noise: ``int32 [num_rows]``, any bits.

    Returns:
        ``bfloat16 [num_rows, dim]``.
    """
    columns = torch.arange(values.shape[1], dtype=torch.int32, device=values.device)
    drawn = (noise[:, None] * _ODD + columns * _STRIDE) & 0xFFFF
    bits = (values.view(torch.int32) + drawn) & ~0xFFFF
    return bits.view(torch.float32).to(torch.bfloat16)


class LazyAdam(_TableOptimizer):
    """Adam for sparse gradients: a row that has none is left alone, moments included.

    The bias correction counts all steps, as FBGEMM's fused Adam does.

    Args:
        parameters: Matrices ``[num_rows, dim]``.
        lr: Learning rate.
    """

    _BETAS, _EPS = (0.9, 0.999), 1e-8

    def __init__(self, parameters: Iterable[TableRows], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    def _new_state(self, table: Tensor) -> State:
        return {
            "step": torch.zeros((), device=table.device),
            "exp_avg": torch.zeros_like(table),
            "exp_avg_sq": torch.zeros_like(table),
        }

    def _update_rows(self, table: Tensor, groups: Groups, state: State, rate: float) -> None:
        state["step"] += 1
        mean_bias, square_bias = (1 - beta ** state["step"] for beta in self._BETAS)
        matrices = [table, state["exp_avg"], state["exp_avg_sq"]]
        for group in groups:
            row, mean, square = [matrix.index_select(0, group.rows) for matrix in matrices]
            mean.lerp_(group.values, 1 - self._BETAS[0])
            square.lerp_(group.values.square(), 1 - self._BETAS[1])
            row -= rate / mean_bias * mean / ((square / square_bias).sqrt() + self._EPS)
            for matrix, updated in zip(matrices, (row, mean, square), strict=True):
                matrix.index_copy_(0, group.rows, updated)


class Optimizers:
    """Updates tables and dense parameters together, with one decay of both learning rates.

    Args:
        tables: This rank's rows of every table; or tables that kernels update in the backward pass.
        dense: The replicated parameters.
        settings: Which optimizers.
        is_sparse: Whether tables get gradients of some rows.
    """

    def __init__(
        self,
        tables: Mapping[str, TableRows] | FusedTables,
        dense: list[nn.Parameter],
        settings: OptimizerSettings,
        is_sparse: bool = False,
    ) -> None:
        self.table_parameters = tables
        self.dense_parameters = dense
        self._settings = settings
        self._is_sparse = is_sparse
        if isinstance(tables, FusedTables):
            self._tables = tables.optimizer
        else:
            self._tables = _table_optimizer(list(tables.values()), settings, is_sparse)
        self._dense = (
            torch.optim.Adam(dense, lr=settings.dense_learning_rate, fused=True) if dense else None
        )

    def set_epoch(self, epoch: int, step: int = 0) -> None:
        """Sets the learning rates of an epoch: ``rate * decay ** (epoch / decay_epochs)``.

        Args:
            epoch: Epochs done.
            step: Steps done, over all epochs.
        """
        if isinstance(self._tables, _TableOptimizer):
            self._tables.number = step
        factor = self._settings.decay ** (epoch / self._settings.decay_epochs)
        for group in self._tables.param_groups:
            group["lr"] = self._settings.learning_rate * factor
        self._tables.zero_grad()  # fused kernels take their rate with it, before the first step
        for group in self._dense.param_groups if self._dense else []:
            group["lr"] = self._settings.dense_learning_rate * factor

    def step(self) -> None:
        """Applies the gradients and clears them."""
        for optimizer in filter(None, (self._tables, self._dense)):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def materialize(self) -> None:
        """Creates the state of every parameter up front, as a checkpoint loads into it."""
        is_fused = isinstance(self.table_parameters, FusedTables)
        for optimizer in filter(None, (None if is_fused else self._tables, self._dense)):
            for group in optimizer.param_groups:
                rate, group["lr"] = group["lr"], 0.0
                for parameter in group["params"]:
                    if not (self._is_sparse and optimizer is self._tables):
                        parameter.grad = torch.zeros_like(parameter)
                optimizer.step()
                group["lr"] = rate
                for parameter in group["params"]:
                    for value in optimizer.state[parameter].values():
                        value.zero_()
            optimizer.zero_grad(set_to_none=True)

    def table_state(self, table: str) -> dict[str, list[Tensor]]:
        """State of one table's optimizer, e.g. ``exp_avg [num_rows, dim]`` of each own shard."""
        if isinstance(self.table_parameters, FusedTables):
            return self.table_parameters.optimizer_state(table)
        state = self._tables.state[self.table_parameters[table]]
        return {name: [value] for name, value in state.items()}

    def dense_state(self) -> list[dict[str, Tensor]]:
        """State of the dense optimizer, one entry per parameter."""
        if self._dense is None:
            return []
        return [self._dense.state[parameter] for parameter in self.dense_parameters]


def _table_optimizer(
    tables: list[TableRows], settings: OptimizerSettings, is_sparse: bool
) -> torch.optim.Optimizer:
    rate = settings.learning_rate
    if settings.tables == "rowwise_adagrad":
        return RowWiseAdagrad(tables, lr=rate)
    if is_sparse:
        return LazyAdam(tables, lr=rate)
    return torch.optim.Adam(tables, lr=rate, fused=True)
