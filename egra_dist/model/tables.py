"""The user and item embedding tables, sharded row-wise by TorchRec.

The shard itself is the parameter: an ordinary torch optimizer updates the storage that TorchRec's
checkpoints see. Exact propagation reads every local row in every step, so that no row travels to
be looked up and nothing is sorted. Sampled propagation looks a batch's rows up wherever they live,
and the shard's gradient is sparse: only those rows are updated. On a CPU that is cheaper than
FBGEMM's fused kernels behind TorchRec's lookups (``tests/benchmarks/tables.py``, docs/scale.md).
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import Shard, ShardedTensor
from torch.distributed._shard.sharding_spec import ShardMetadata

from egra_dist.graph.partition import RowPartition
from egra_dist.model.lookup import ReadRows, ask_owners

USER, ITEM = "user", "item"
_INITIALISATION_BLOCK = 65536


class EmbeddingTables:
    """Two row-wise sharded tables; needs an initialised process group.

    Args:
        sizes: Rows of each table.
        widths: Columns of each table.
        device: Where the shards live.
        dtype: Type of the rows.
    """

    def __init__(
        self,
        sizes: dict[str, int],
        widths: dict[str, int],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._sizes = sizes
        self._model = _shard(sizes, widths, device, dtype)
        self._sharded = {
            name: self._model.state_dict()[f"tables.{name}.embeddings.{name}.weight"]
            for name in self._sizes
        }
        self._parameters = {
            name: nn.Parameter(_local(sharded, widths[name], device, dtype))
            for name, sharded in self._sharded.items()
        }

    def local(self, table: str) -> nn.Parameter:
        """This rank's rows ``[num_own_rows, dim]``; sharing storage with TorchRec's shard."""
        return self._parameters[table]

    def lookup(self, ids: Mapping[str, Tensor]) -> Tensor:
        """Rows of some tables, wherever they live, one table below the other; a collective call.

        Args:
            ids: Of each table distinct rows, ascending, ``int64 [num_rows]``.

        Returns:
            ``float32 [sum(num_rows), dim]``; gradients arrive as sparse rows of :meth:`local` of
            the owner.
        """
        asked = ask_owners([self.partition(table) for table in ids], list(ids.values()))
        return ReadRows.apply(asked, *(self.local(table) for table in ids))

    def parameters(self) -> dict[str, nn.Parameter]:
        """This rank's rows of every table."""
        return dict(self._parameters)

    def partition(self, table: str) -> RowPartition:
        """Who owns which row."""
        return RowPartition.even(self._sizes[table], dist.get_world_size())

    def initialize(self, seed: int) -> None:
        """Xavier-uniform rows that depend on the seed and not on the number of ranks."""
        for position, (table, num_rows) in enumerate(self._sizes.items()):
            own = self.partition(table).block(dist.get_rank())
            with torch.no_grad():
                fill_rows(self.local(table), num_rows, own, seed=seed * 2 + position)

    def sharded_tensors(self) -> dict[str, ShardedTensor]:
        """The tables for a distributed checkpoint."""
        return dict(self._sharded)

    def shard_like(self, table: str, local: Tensor) -> ShardedTensor:
        """Wraps optimizer state of the own rows so that it is checkpointed as the table is.

        Args:
            table: Name of the table.
            local: ``[num_own_rows]`` or ``[num_own_rows, dim]``.
        """
        own = self.partition(table).block(dist.get_rank())
        width = list(local.shape[1:])
        metadata = ShardMetadata(
            shard_offsets=[own.start, *[0] * len(width)],
            shard_sizes=list(local.shape),
            placement=f"rank:{dist.get_rank()}/{local.device}",
        )
        shards = [Shard(local, metadata)] if len(local) else []
        return ShardedTensor._init_from_local_shards(shards, [self._sizes[table], *width])


def fill_rows(rows: Tensor, num_rows: int, own: slice, seed: int) -> None:
    """Fills this rank's rows of a table with ``uniform(-a, a)``, ``a = sqrt(6 / (n + dim))``.

    Rows are drawn in fixed blocks, each from a generator of its own, so that a row's value does
    not depend on who owns it (Glorot & Bengio 2010).

    Args:
        rows: ``[num_own_rows, dim]``, overwritten.
        num_rows: Rows of the whole table.
        own: The rows of the table that ``rows`` holds.
        seed: Seed of the table.
    """
    dim = rows.shape[1]
    bound = (6.0 / (num_rows + dim)) ** 0.5
    for start in range(
        own.start // _INITIALISATION_BLOCK * _INITIALISATION_BLOCK, own.stop, _INITIALISATION_BLOCK
    ):
        stop = min(start + _INITIALISATION_BLOCK, num_rows)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + start)
        block = torch.empty(stop - start, dim).uniform_(-bound, bound, generator=generator)
        first, last = max(start, own.start), min(stop, own.stop)
        rows[first - own.start : last - own.start] = block[first - start : last - start]


class _Holder(nn.Module):
    """One collection for each table: the tables of one collection must be equally wide."""

    def __init__(self, tables: dict[str, nn.Module]) -> None:
        super().__init__()
        self.tables = nn.ModuleDict(tables)


def _shard(
    sizes: dict[str, int], widths: dict[str, int], device: torch.device, dtype: torch.dtype
) -> nn.Module:
    module, planner, sharders = planned_tables(
        sizes, widths, dist.get_world_size(), device.type, dtype
    )
    from torchrec.distributed import DistributedModelParallel

    return DistributedModelParallel(
        module,
        device=device,
        plan=planner.collective_plan(module, sharders, dist.group.WORLD),
        sharders=sharders,
        init_data_parallel=False,
    )


def planned_tables(
    sizes: Mapping[str, int],
    widths: Mapping[str, int],
    num_ranks: int,
    device_type: str,
    dtype: torch.dtype = torch.float32,
) -> tuple[nn.Module, Any, Sequence]:
    """The tables, without their rows, and who plans where these go: row-wise, fused kernels.

    Args:
        sizes: Rows of each table.
        widths: Columns of each table.
        num_ranks: Number of workers.
        device_type: ``cpu`` or ``cuda``.
        dtype: Type of the rows.

    Returns:
        A module with the table ``name`` at ``tables.<name>``, TorchRec's planner, and sharders.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchrec import EmbeddingCollection, EmbeddingConfig
        from torchrec.distributed.embedding import EmbeddingCollectionSharder
        from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
        from torchrec.distributed.planner.types import ParameterConstraints
        from torchrec.modules.embedding_configs import dtype_to_data_type

    configs = {
        name: EmbeddingConfig(
            name=name,
            embedding_dim=widths[name],
            num_embeddings=num_rows,
            feature_names=[name],
            data_type=dtype_to_data_type(dtype),
        )
        for name, num_rows in sizes.items()
    }
    module = _Holder(
        {
            name: EmbeddingCollection(tables=[config], device=torch.device("meta"))
            for name, config in configs.items()
        }
    )
    constraint = ParameterConstraints(sharding_types=["row_wise"], compute_kernels=["fused"])
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=num_ranks, compute_device=device_type),
        constraints=dict.fromkeys(sizes, constraint),
    )
    return module, planner, [EmbeddingCollectionSharder()]


def _local(sharded: ShardedTensor, dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    shards = sharded.local_shards()
    return shards[0].tensor if shards else torch.empty(0, dim, device=device, dtype=dtype)
