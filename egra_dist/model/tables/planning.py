"""Tables as TorchRec's planner places them."""

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from egra_dist.config import TableSettings
from egra_dist.errors import UserError
from egra_dist.model.tables.base import Lookup

_GIB = 2**30


class Collections(nn.Module):
    """One collection for each table: the tables of one collection must be equally wide.

    Args:
        tables: By name.
        managed: Those with managed collisions.
    """

    def __init__(self, tables: Mapping[str, nn.Module], managed: Collection[str] = ()) -> None:
        super().__init__()
        self.tables = nn.ModuleDict(tables)
        self.managed = managed

    def forward(self, batch: Lookup) -> Tensor:
        """Rows of all tables, one below the other, ``[num_rows, dim]``.

        TorchRec's pipelines trace this to find out which field of a batch they may send ahead.
        """
        found = {name: table(batch.features) for name, table in self.tables.items()}
        rows = {name: found[name][0] if name in self.managed else found[name] for name in found}
        return torch.cat([rows[name][name].values() for name in self.tables])


def planned_tables(
    sizes: Mapping[str, int],
    widths: Mapping[str, int],
    num_ranks: int,
    device_type: str,
    dtype: torch.dtype = torch.float32,
    settings: TableSettings | None = None,
    fused_params: Mapping[str, Any] | None = None,
) -> tuple[Collections, Any, Sequence]:
    """The tables, without their rows, and who plans where these go.

    Args:
        sizes: Ids of each table, and its rows where collisions are not managed.
        widths: Columns of each table.
        num_ranks: Number of workers.
        device_type: ``cpu`` or ``cuda``.
        dtype: Type of the rows.
        settings: What the planner may choose from; row-wise and fused kernels when None.
        fused_params: How FBGEMM's kernels update rows; not at all when None.

    Returns:
        A module with the table ``name`` at ``tables.<name>``, TorchRec's planner, and sharders.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchrec import EmbeddingCollection, EmbeddingConfig
        from torchrec.distributed.embedding import EmbeddingCollectionSharder
        from torchrec.distributed.planner import EmbeddingShardingPlanner
        from torchrec.modules.embedding_configs import dtype_to_data_type

    settings = settings or TableSettings()
    num_rows = settings.num_rows(sizes)
    configs = {
        name: EmbeddingConfig(
            name=name,
            embedding_dim=widths[name],
            num_embeddings=num_rows[name],
            feature_names=[name],
            data_type=dtype_to_data_type(dtype),
        )
        for name in sizes
    }
    params = dict(fused_params) if fused_params else None
    sharders: list[Any] = [EmbeddingCollectionSharder(params)]
    collections = {
        name: EmbeddingCollection(tables=[config], device=torch.device("meta"))
        for name, config in configs.items()
    }
    managed = [name for name in sizes if num_rows[name] != sizes[name]]
    if managed:
        from egra_dist.model.tables.collisions import CollisionSharder, managed_collection

        sharders.append(CollisionSharder(params))
        for name in managed:
            collections[name] = managed_collection(
                configs[name], sizes[name], num_ranks, settings.managed_collision
            )
    planner = EmbeddingShardingPlanner(
        topology=_topology(num_ranks, device_type, settings),
        constraints=dict.fromkeys(sizes, _constraints(settings)),
    )
    return Collections(collections, managed), planner, sharders


def _topology(num_ranks: int, device_type: str, settings: TableSettings) -> Any:
    from torchrec.distributed.planner import Topology

    limits = (settings.device_memory_gib, settings.host_memory_gib)
    device, host = (None if limit is None else int(limit * _GIB) for limit in limits)
    return Topology(num_ranks, compute_device=device_type, hbm_cap=device, ddr_cap=host)


def _constraints(settings: TableSettings) -> Any:
    from torchrec.distributed.planner.types import ParameterConstraints
    from torchrec.distributed.types import CacheParams

    is_cached = settings.kernel == "fused_uvm_caching"
    return ParameterConstraints(
        sharding_types=list(settings.sharding),
        compute_kernels=[settings.kernel],
        min_partition=settings.column_width,
        cache_params=CacheParams(load_factor=settings.cache_load_factor) if is_cached else None,
    )


@contextmanager
def planner_errors_named() -> Iterator[None]:
    """Tells a user whose tables do not fit, or not so.

    Raises:
        UserError: Where TorchRec's planner finds no plan.
    """
    from torchrec.distributed.planner.types import PlannerError

    try:
        yield
    except PlannerError as error:
        reason = next(filter(None, map(str.strip, str(error).splitlines())), "")
        raise UserError(f"tables: TorchRec's planner finds no plan: {reason}") from None


def sharded_model(
    planned: tuple[Collections, Any, Sequence], device: torch.device
) -> tuple[nn.Module, dict[str, Any]]:
    """Places tables over the ranks; a collective call.

    Args:
        planned: What :func:`planned_tables` returned.
        device: Where this rank's shards live.

    Returns:
        The module, and the ``ShardedTensor`` of each table.

    Raises:
        UserError: If the tables do not fit.
    """
    from torchrec.distributed import DistributedModelParallel

    module, planner, sharders = planned
    with planner_errors_named():
        plan = planner.collective_plan(module, sharders, dist.group.WORLD)
    model = DistributedModelParallel(
        module,
        device=device,
        plan=plan,
        sharders=sharders,
        init_data_parallel=False,
    )
    state = model.state_dict()
    tables = {}
    for name, _ in module.tables.named_children():
        inside = "_embedding_module." if name in module.managed else ""
        tables[name] = state[f"tables.{name}.{inside}embeddings.{name}.weight"]
    return model, tables
