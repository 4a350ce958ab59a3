"""Tables whose local rows are ordinary parameters; always row-wise."""

from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor

from egra_dist.model.lookup import ReadRows, ask_owners
from egra_dist.model.tables.base import ROWS_AT_ONCE, EmbeddingTables, TableShard
from egra_dist.model.tables.planning import planned_tables, sharded_model


class DirectTables(EmbeddingTables):
    """Two row-wise sharded tables; needs an initialised process group.

    Args:
        sizes: Rows of each table.
        widths: Columns of each table.
        device: Where the shards live.
        dtype: Type of the rows.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        widths: Mapping[str, int],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        planned = planned_tables(sizes, widths, dist.get_world_size(), device.type, dtype)
        self._model, sharded = sharded_model(planned, device)
        super().__init__(sizes, widths, sharded)
        self._parameters = {
            name: nn.Parameter(_local(table, widths[name], device, dtype))
            for name, table in sharded.items()
        }

    def local(self, table: str) -> nn.Parameter:
        """This rank's rows ``[num_own_rows, dim]``; sharing storage with TorchRec's shard."""
        return self._parameters[table]

    def parameters(self) -> dict[str, nn.Parameter]:
        """This rank's rows of every table."""
        return dict(self._parameters)

    def lookup(self, ids: Mapping[str, Tensor]) -> Tensor:
        """See :meth:`EmbeddingTables.lookup`.

        Gradients arrive as sparse rows of :meth:`local` of the owner.
        """
        asked = ask_owners([self.partition(table) for table in ids], list(ids.values()))
        return ReadRows.apply(asked, *(self.local(table) for table in ids))

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


def _local(sharded: ShardedTensor, dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    shards = sharded.local_shards()
    return shards[0].tensor if shards else torch.empty(0, dim, device=device, dtype=dtype)
