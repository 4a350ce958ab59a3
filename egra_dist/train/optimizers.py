"""Two optimizers, one for the sharded tables and one for the dense parameters."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from egra_dist.config import OptimizerSettings


class RowWiseAdagrad(torch.optim.Optimizer):
    """Adagrad with one accumulator per row: the mean square of the row's gradients.

    The same update as FBGEMM's ``EXACT_ROWWISE_ADAGRAD``, for a dense gradient.

    Args:
        parameters: Matrices ``[num_rows, dim]``.
        lr: Learning rate.
        eps: Added to the root of the accumulator.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, eps: float = 1e-8) -> None:
        super().__init__(parameters, {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Updates every matrix that has a gradient; of a sparse one the rows that it has."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                state = self.state[parameter]
                if not state:
                    state["sum"] = torch.zeros(len(parameter), device=parameter.device)
                if gradient.is_sparse:
                    _update_rows(parameter, state["sum"], gradient.coalesce(), **_rate(group))
                    continue
                state["sum"] += gradient.square().mean(1)
                scale = group["lr"] / (state["sum"].sqrt() + group["eps"])
                parameter -= scale[:, None] * gradient


def _rate(group: dict[str, Any]) -> dict[str, float]:
    return {"lr": group["lr"], "eps": group["eps"]}


def _update_rows(parameter: Tensor, sums: Tensor, gradient: Tensor, lr: float, eps: float) -> None:
    rows, values = gradient.indices()[0], gradient.values()
    own = sums.index_select(0, rows) + values.square().mean(1)
    sums.index_copy_(0, rows, own)
    parameter.index_add_(0, rows, values * (lr / (own.sqrt() + eps))[:, None], alpha=-1)


class LazyAdam(torch.optim.Optimizer):
    """Adam for sparse gradients: a row that has none is left alone, moments included.

    The bias correction counts all steps, as FBGEMM's fused Adam does.

    Args:
        parameters: Matrices ``[num_rows, dim]``.
        lr: Learning rate.
    """

    _BETAS, _EPS = (0.9, 0.999), 1e-8

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Updates the rows that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros((), device=parameter.device)
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                self._update(parameter, parameter.grad.coalesce(), state, group["lr"])

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], rate: float
    ) -> None:
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
        tables: This rank's rows of every table.
        dense: The replicated parameters.
        settings: Which optimizers.
        is_sparse: Whether the gradients of tables are.
    """

    def __init__(
        self,
        tables: dict[str, nn.Parameter],
        dense: list[nn.Parameter],
        settings: OptimizerSettings,
        is_sparse: bool = False,
    ) -> None:
        self.table_parameters = tables
        self.dense_parameters = dense
        self._settings = settings
        rate = settings.learning_rate
        self._tables: torch.optim.Optimizer
        self._is_sparse = is_sparse
        if settings.tables == "adam" and is_sparse:
            self._tables = LazyAdam(tables.values(), lr=rate)
        elif settings.tables == "adam":
            self._tables = torch.optim.Adam(tables.values(), lr=rate, fused=True)
        else:
            self._tables = RowWiseAdagrad(tables.values(), lr=rate)
        self._dense = (
            torch.optim.Adam(dense, lr=settings.dense_learning_rate, fused=True) if dense else None
        )

    def set_epoch(self, epoch: int) -> None:
        """Sets the learning rates of an epoch: ``rate * decay ** (epoch / decay_epochs)``."""
        factor = self._settings.decay ** (epoch / self._settings.decay_epochs)
        for group in self._tables.param_groups:
            group["lr"] = self._settings.learning_rate * factor
        for group in self._dense.param_groups if self._dense else []:
            group["lr"] = self._settings.dense_learning_rate * factor

    def step(self) -> None:
        """Applies the gradients and clears them."""
        for optimizer in filter(None, (self._tables, self._dense)):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def materialize(self) -> None:
        """Creates the state of every parameter up front, as a checkpoint loads into it."""
        for optimizer in filter(None, (self._tables, self._dense)):
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

    def table_state(self, table: str) -> dict[str, Tensor]:
        """State of one table's optimizer, e.g. ``exp_avg [num_own_rows, dim]``."""
        return self._tables.state[self.table_parameters[table]]

    def dense_state(self) -> list[dict[str, Tensor]]:
        """State of the dense optimizer, one entry per parameter."""
        if self._dense is None:
            return []
        return [self._dense.state[parameter] for parameter in self.dense_parameters]


def _no_gradient(parameter: Tensor, is_sparse: bool) -> Tensor:
    if not is_sparse:
        return torch.zeros_like(parameter)
    return torch.sparse_coo_tensor(
        torch.empty(1, 0, dtype=torch.int64),
        torch.empty(0, *parameter.shape[1:]),
        parameter.shape,
        device=parameter.device,
        check_invariants=False,
    )
