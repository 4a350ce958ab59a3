"""What tables have in common, however their rows are looked up."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._shard.sharded_tensor import Shard, ShardedTensor
from torch.distributed._shard.sharding_spec import ShardMetadata

from egra_dist.graph.partition import RowPartition

USER, ITEM = "user", "item"
_INITIALISATION_BLOCK = 65536
ROWS_AT_ONCE = 65_536
"""Of :meth:`EmbeddingTables.own_rows`."""


class Lookup(Protocol):
    """What is looked up for a batch."""

    @property
    def ids(self) -> Mapping[str, Tensor]:
        """Of each table distinct rows, ascending, ``int64 [num_rows]``."""

    @property
    def features(self) -> Any:
        """The same as TorchRec's ``KeyedJaggedTensor``; None where its lookup is not used."""


@dataclass(frozen=True)
class TableShard:
    """A part of a table that this rank holds.

    Attributes:
        rows: Which rows of the table.
        columns: Which columns.
        values: ``[num_rows, num_columns]``; what is written here is in the table.
    """

    rows: slice
    columns: slice
    values: Tensor


class EmbeddingTables(ABC):
    """Two sharded tables; needs an initialised process group.

    Args:
        sizes: Ids of each table, and as a rule its rows.
        widths: Columns of each table.
        sharded: The tables as TorchRec has sharded them.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        widths: Mapping[str, int],
        sharded: Mapping[str, ShardedTensor],
    ) -> None:
        self._sizes = sizes
        self._widths = widths
        self._sharded = sharded
        self._num_rows = {table: tensor.size(0) for table, tensor in sharded.items()}

    @abstractmethod
    def lookup(self, ids: Mapping[str, Tensor]) -> Tensor:
        """Rows of some tables, wherever they live, one table below the other; a collective call.

        Args:
            ids: Of each table distinct rows, ascending, ``int64 [num_rows]``.

        Returns:
            ``float32 [sum(num_rows), dim]``.
        """

    def lookup_batch(self, batch: Lookup) -> Tensor:
        """Rows of a batch, see :meth:`lookup`; a collective call."""
        return self.lookup(batch.ids)

    @abstractmethod
    def shards(self, table: str) -> list[TableShard]:
        """What this rank holds of a table; where that is nothing, one shard without rows."""

    @abstractmethod
    def own_rows(self, table: str) -> Iterator[tuple[slice, Tensor]]:
        """This rank's rows by :meth:`partition`, block by block; a collective call.

        Yields:
            Which rows of the table, and their values ``float32 [num_rows, dim]``; no gradients.
        """

    def width(self, table: str) -> int:
        """Columns of a table."""
        return self._widths[table]

    def partition(self, table: str) -> RowPartition:
        """Who evaluates which id, and owns its row where a table is row-wise."""
        return RowPartition.even(self._sizes[table], dist.get_world_size())

    def initialize(self, seed: int) -> None:
        """Xavier-uniform rows that depend on the seed and not on the number of ranks."""
        for position, (table, num_rows) in enumerate(self._num_rows.items()):
            for shard in self.shards(table):
                with torch.no_grad():
                    fill_rows(shard, num_rows, self.width(table), seed=seed * 2 + position)
        self.purge()

    @abstractmethod
    def flush(self) -> None:
        """Brings shards up to date, where a cache stands before them."""

    @abstractmethod
    def purge(self) -> None:
        """Forgets what was derived from shards that have been written since."""

    def mapping_state(self, table: str) -> dict[str, list[Tensor]]:
        """Which ids have which rows, where that changes; a tensor for each of :meth:`shards`."""
        return {}

    def metrics(self) -> dict[str, float]:
        """What is recorded of the tables beside losses; a collective call."""
        return {}

    def sharded_tensors(self) -> dict[str, ShardedTensor]:
        """The tables as TorchRec has sharded them."""
        return dict(self._sharded)

    def shard_like(self, table: str, values: Sequence[Tensor]) -> ShardedTensor:
        """Wraps a tensor for each own shard so that they are checkpointed as the table is.

        Args:
            table: Name of the table.
            values: Of each shard ``[num_rows]`` or ``[num_rows, num_columns]``. Where columns are
                sharded, too, what belongs to rows alone is kept once for each block of columns.
        """
        starts = sorted({shard.shard_offsets[1] for shard in self._metadata(table)})
        num_rows, dim = self._num_rows[table], self.width(table)
        local = []
        for shard, value in zip(self.shards(table), values, strict=True):
            first = [shard.rows.start, shard.columns.start]
            if value.dim() == 1 and len(value):
                first = [starts.index(first[1]) * num_rows + first[0]]
            placement = f"rank:{dist.get_rank()}/{value.device}"
            if len(value):
                local.append(Shard(value, ShardMetadata(first, list(value.shape), placement)))
        size = [num_rows, dim] if values[0].dim() == 2 else [len(starts) * num_rows]
        return ShardedTensor._init_from_local_shards(local, size)

    def _metadata(self, table: str) -> list[ShardMetadata]:
        return self._sharded[table].metadata().shards_metadata


def fill_rows(shard: TableShard, num_rows: int, dim: int, seed: int) -> None:
    """Fills a shard of a table with ``uniform(-a, a)``, ``a = sqrt(6 / (n + dim))``.

    Rows are drawn in fixed blocks, each from a generator of its own, so that a row's value does
    not depend on who holds it (Glorot & Bengio 2010).

    Args:
        shard: Overwritten.
        num_rows: Rows of the whole table.
        dim: Columns of the whole table.
        seed: Seed of the table.
    """
    own = shard.rows
    bound = (6.0 / (num_rows + dim)) ** 0.5
    for start in range(
        own.start // _INITIALISATION_BLOCK * _INITIALISATION_BLOCK, own.stop, _INITIALISATION_BLOCK
    ):
        stop = min(start + _INITIALISATION_BLOCK, num_rows)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + start)
        block = torch.empty(stop - start, dim).uniform_(-bound, bound, generator=generator)
        first, last = max(start, own.start), min(stop, own.stop)
        drawn = block[first - start : last - start, shard.columns]
        shard.values[first - own.start : last - own.start] = drawn
