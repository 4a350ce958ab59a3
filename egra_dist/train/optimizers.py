"""Two optimizers, one for the sharded tables and one for the dense parameters."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from egra_dist.config import OptimizerSettings
from egra_dist.model.tables import FusedTables

_ODD, _STRIDE = 0x79B1, 0x9E37
"""Numbers that spread the bits of a row, and columns, over all values of 16 bits."""


class _TableOptimizer(torch.optim.Optimizer, ABC):
    """Updates every matrix ``[num_rows, dim]`` that has a gradient."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update; of a sparse gradient the rows that it has."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient.is_sparse:
                    gradient = _of_distinct_rows(gradient)
                self._update(parameter, gradient, self.state[parameter], group["lr"])

    @abstractmethod
    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], rate: float
    ) -> None:
        """Updates one matrix; the state is empty before the first."""


class RowWiseAdagrad(_TableOptimizer):
    """Adagrad with one accumulator per row: the mean square of the row's gradients.

    The same update as FBGEMM's ``EXACT_ROWWISE_ADAGRAD``.

    Args:
        parameters: Matrices ``[num_rows, dim]``.
        lr: Learning rate.
        eps: Added to the root of the accumulator.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, eps: float = 1e-8) -> None:
        super().__init__(parameters, {"lr": lr})
        self._eps = eps

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], rate: float
    ) -> None:
        if not state:
            state["sum"] = torch.zeros(len(parameter), device=parameter.device)
        if not gradient.is_sparse:
            state["sum"] += gradient.square().mean(1)
            parameter -= (rate / (state["sum"].sqrt() + self._eps))[:, None] * gradient
            return
        rows, values = gradient.indices()[0], gradient.values().float()
        squares = torch.linalg.vector_norm(values, dim=1).square_() / values.shape[1]
        own = state["sum"].index_select(0, rows).add_(squares)
        state["sum"].index_copy_(0, rows, own)
        noise = own.view(torch.int32)
        scale = own.sqrt().add_(self._eps).reciprocal_().mul_(-rate)
        if parameter.dtype == torch.bfloat16:
            new = parameter.index_select(0, rows).float().addcmul_(scale[:, None], values)
            parameter.index_copy_(0, rows, rounded_at_random(new, noise))
            return
        # On a CPU a third of what index_add_ takes.
        parameter.scatter_add_(0, rows[:, None].expand_as(values), scale[:, None] * values)


def rounded_at_random(values: Tensor, noise: Tensor) -> Tensor:
    """Rounds up or down, each the likelier the nearer, so that small updates add up.

    What is drawn is made of numbers that change with every update: a training that goes on from a
    checkpoint rounds as one that was not interrupted.

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

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], rate: float
    ) -> None:
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        rows = gradient.indices()[0]
        state["step"] += 1
        matrices = [parameter, state["exp_avg"], state["exp_avg_sq"]]
        row, mean, square = [matrix.index_select(0, rows) for matrix in matrices]
        mean.lerp_(gradient.values(), 1 - self._BETAS[0])
        square.lerp_(gradient.values().square(), 1 - self._BETAS[1])
        mean_bias, square_bias = (1 - beta ** state["step"] for beta in self._BETAS)
        row -= rate / mean_bias * mean / ((square / square_bias).sqrt() + self._EPS)
        for matrix, updated in zip(matrices, (row, mean, square), strict=True):
            matrix.index_copy_(0, rows, updated)


class Optimizers:
    """Updates tables and dense parameters together, with one decay of both learning rates.

    Args:
        tables: This rank's rows of every table; or tables that kernels update in the backward pass.
        dense: The replicated parameters.
        settings: Which optimizers.
        is_sparse: Whether the gradients of tables are.
    """

    def __init__(
        self,
        tables: dict[str, nn.Parameter] | FusedTables,
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

    def set_epoch(self, epoch: int) -> None:
        """Sets the learning rates of an epoch: ``rate * decay ** (epoch / decay_epochs)``."""
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
                    is_sparse = self._is_sparse and optimizer is self._tables
                    parameter.grad = _no_gradient(parameter, is_sparse)
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
    tables: list[nn.Parameter], settings: OptimizerSettings, is_sparse: bool
) -> torch.optim.Optimizer:
    rate = settings.learning_rate
    if settings.tables == "rowwise_adagrad":
        return RowWiseAdagrad(tables, lr=rate)
    if is_sparse:
        return LazyAdam(tables, lr=rate)
    return torch.optim.Adam(tables, lr=rate, fused=True)


def _of_distinct_rows(gradient: Tensor) -> Tensor:
    """A sparse gradient whose rows ascend, each there once.

    Lookups make them so, but autograd forgets it, and torch would sort and copy them.
    """
    rows = gradient._indices()[0]
    if not bool((rows[1:] > rows[:-1]).all()):
        return gradient.coalesce()
    return torch.sparse_coo_tensor(
        rows[None], gradient._values(), gradient.shape, is_coalesced=True, check_invariants=False
    )


def _no_gradient(parameter: Tensor, is_sparse: bool) -> Tensor:
    if not is_sparse:
        return torch.zeros_like(parameter)
    return torch.sparse_coo_tensor(
        torch.empty(1, 0, dtype=torch.int64),
        parameter.new_empty(0, *parameter.shape[1:]),
        parameter.shape,
        device=parameter.device,
        check_invariants=False,
    )
