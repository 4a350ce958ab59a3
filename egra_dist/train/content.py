"""The tensors of a training that a checkpoint holds, and copies of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from egra_dist.model.tables import ITEM, USER, EmbeddingTables
from egra_dist.train.optimizers import Optimizers


class Copies:
    """Copies of tensors in the CPU's memory, which stay as they are while the training goes on."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def __call__(self, live: Tensor) -> Tensor:
        """A copy of a tensor; its values come with :meth:`refresh`."""
        copy = torch.empty_like(live, device="cpu")
        self._pairs.append((live, copy))
        return copy

    @torch.no_grad()
    def refresh(self) -> None:
        """Takes the values of now."""
        for live, copy in self._pairs:
            copy.copy_(live)


def content(
    tables: EmbeddingTables,
    model: nn.Module,
    optimizers: Optimizers,
    of: Callable[[Tensor], Tensor],
) -> dict[str, Any]:
    """Everything that a checkpoint holds.

    Args:
        tables: The sharded tables.
        model: The dense parameters.
        optimizers: Optimizers of both.
        of: What is made of each of their tensors; those of tables come as shards of the whole.
    """

    def sharded(table: str, values: Sequence[Tensor]) -> Any:
        copies = [of(value) for value in values]
        return tables.shard_like(table, copies) if copies[0].dim() else copies[0]

    rows = {table: [shard.values for shard in tables.shards(table)] for table in (USER, ITEM)}
    mapping = {
        f"{table}_mapping": {name: sharded(table, value) for name, value in state.items()}
        for table in (USER, ITEM)
        if (state := tables.mapping_state(table))
    }
    return {
        "tables": {table: sharded(table, values) for table, values in rows.items()},
        "table_optimizer": {
            table: {name: sharded(table, v) for name, v in optimizers.table_state(table).items()}
            for table in (USER, ITEM)
        },
        **mapping,
        "dense": {name: of(value) for name, value in model.state_dict().items()},
        "dense_optimizer": {
            str(position): {name: of(value) for name, value in state.items()}
            for position, state in enumerate(optimizers.dense_state())
        },
    }


def shapes(tensors: Mapping[str, Any]) -> dict[str, list[int]]:
    """Size of every tensor, by its place in what :func:`content` returned."""
    return {name: list(value.size()) for name, value in _leaves(tensors)}


def _leaves(tensors: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tensors.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
