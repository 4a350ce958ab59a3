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
        """Updates every matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                state = self.state[parameter]
                if not state:
                    state["sum"] = torch.zeros(len(parameter), device=parameter.device)
                state["sum"] += gradient.square().mean(1)
                scale = group["lr"] / (state["sum"].sqrt() + group["eps"])
                parameter -= scale[:, None] * gradient


class Optimizers:
    """Updates tables and dense parameters together, with one decay of both learning rates."""

    def __init__(
        self,
        tables: dict[str, nn.Parameter],
        dense: list[nn.Parameter],
        settings: OptimizerSettings,
    ) -> None:
        self.table_parameters = tables
        self.dense_parameters = dense
        self._settings = settings
        rate = settings.learning_rate
        self._tables: torch.optim.Optimizer
        if settings.tables == "adam":
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
                    parameter.grad = torch.zeros_like(parameter)
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
