"""Tables whose local rows are ordinary parameters; always row-wise."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._shard.sharded_tensor import ShardedTensor

from egra_dist.graph.partition import RowPartition
from egra_dist.model.blackboard import Blackboard
from egra_dist.model.lookup import NetworkRows, ReadRows, RowExchange
from egra_dist.model.row_gradients import TableRows
from egra_dist.model.segment import on_one_machine, open_together, opened
from egra_dist.model.shared_tables import SharedRows, SharedTables, meet
from egra_dist.model.tables.base import ROWS_AT_ONCE, EmbeddingTables, TableShard
from egra_dist.model.tables.planning import planned_tables, sharded_model


class DirectTables(EmbeddingTables):
    """Two row-wise sharded tables; needs an initialised process group.

    Args:
        sizes: Rows of each table.
        widths: Columns of each table.
        device: Where the shards live.
        dtype: Type of the rows.
        place: Where rows lie. ``shared``: the ranks of one machine look them up where they are, if
            there is room. ``stacked``: this rank's rows of one table begin where those of the one
            before it end, if they are as wide, and if there is room all ranks of a machine see
            them by a :class:`Blackboard`. ``apart``: neither.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        widths: Mapping[str, int],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        place: Literal["apart", "shared", "stacked"] = "shared",
    ) -> None:
        planned = planned_tables(sizes, widths, dist.get_world_size(), device.type, dtype)
        self._model, sharded = sharded_model(planned, device)
        super().__init__(sizes, widths, sharded)
        rows = {name: _local(table, widths[name], device, dtype) for name, table in sharded.items()}
        self._shards: dict[str, list[Tensor]] = {}
        if place == "stacked" and len(set(widths.values())) == 1:
            self._stack(rows)
        if dist.get_world_size() == 1:
            self._shards = {name: [own] for name, own in rows.items()}
        elif place == "shared":
            self._shards = self._shared(rows)
        self._parameters = {name: TableRows(own) for name, own in rows.items()}
        for name, own_rows in self._parameters.items():
            own_rows.first_row = self.partition(name).block(dist.get_rank()).start

    def _shared(self, rows: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        """Moves the own rows to where the other ranks see them; nothing if that cannot be."""
        partitions = {table: self.partition(table) for table in rows}
        device = next(iter(rows.values())).device
        make = partial(SharedTables, partitions=partitions, like=rows)
        shared = open_together(make) if on_one_machine(device) else None
        if shared is None:
            return {}
        shards = {table: shared.shards(table) for table in rows}
        for table, own in rows.items():
            _move(own, shards[table][dist.get_rank()])
        return shards

    def _stack(self, rows: Mapping[str, Tensor]) -> None:
        """Moves the own rows below each other."""
        partition = RowPartition(np.sum([self.partition(table).starts for table in rows], axis=0))
        like = next(iter(rows.values()))
        board = opened(Blackboard, like.device) if dist.get_world_size() > 1 else None
        of_all = None if board is None else board.keep(like, partition)
        if of_all is None:
            stack = like.new_empty(partition.size(dist.get_rank()), like.shape[1])
        else:
            stack = of_all[partition.block(dist.get_rank())]
        for own, place in zip(rows.values(), stack.split([*map(len, rows.values())]), strict=True):
            _move(own, place)

    def local(self, table: str) -> TableRows:
        """This rank's rows ``[num_own_rows, dim]``; sharing storage with TorchRec's shard."""
        return self._parameters[table]

    def parameters(self) -> dict[str, TableRows]:
        """This rank's rows of every table."""
        return dict(self._parameters)

    def lookup(self, ids: Mapping[str, Tensor]) -> Tensor:
        """See :meth:`EmbeddingTables.lookup`.

        Gradients are left with :meth:`local` of the owner, see :class:`TableRows`.
        """
        tables = [self.local(table) for table in ids]
        partitions = [self.partition(table) for table in ids]
        exchange: RowExchange
        if self._shards:
            shards = [self._shards[table] for table in ids]
            exchange = SharedRows(tables, partitions, list(ids.values()), shards)
        else:
            exchange = NetworkRows(tables, partitions, list(ids.values()))
        rows = ReadRows.apply(exchange, *tables)
        if self._shards and not torch.is_grad_enabled():
            meet()  # No exchange of gradients will tell that all have read.
        return rows

    def shards(self, table: str) -> list[TableShard]:
        """See :meth:`EmbeddingTables.shards`."""
        own = self.partition(table).block(dist.get_rank())
        return [TableShard(own, slice(0, self.width(table)), self.local(table).detach())]

    def own_rows(self, table: str) -> Iterator[tuple[slice, Tensor]]:
        """See :meth:`EmbeddingTables.own_rows`."""
        own = self.partition(table).block(dist.get_rank())
        for part in self.local(table).detach().split(ROWS_AT_ONCE):
            own = slice(own.start, own.start + len(part))
            yield own, part.float()
            own = slice(own.stop, own.stop)

    def flush(self) -> None:
        """See :meth:`EmbeddingTables.flush`; there is no cache."""

    def purge(self) -> None:
        """See :meth:`EmbeddingTables.purge`; there is no cache."""


def _move(own: Tensor, place: Tensor) -> None:
    """Gives rows that have no values yet another place in memory."""
    before = own.untyped_storage()
    own.data = place
    before.resize_(0)


def _local(sharded: ShardedTensor, dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    shards = sharded.local_shards()
    return shards[0].tensor if shards else torch.empty(0, dim, device=device, dtype=dtype)
