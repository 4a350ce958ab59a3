"""TorchRec's own word on how the tables will be sharded, before there are any workers."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TableSharding:
    """How one table is sharded.

    Attributes:
        sharding: E.g. ``row_wise``.
        kernel: E.g. ``fused``.
        rows: Rows of each rank's shard.
    """

    sharding: str
    kernel: str
    rows: tuple[int, ...]


def plan_sharding(
    sizes: Mapping[str, int], widths: Mapping[str, int], num_ranks: int, device: str
) -> dict[str, TableSharding]:
    """Asks TorchRec's planner, as :class:`egra_dist.model.tables.EmbeddingTables` does.

    Args:
        sizes: Rows of each table.
        widths: Columns of each table.
        num_ranks: Number of workers.
        device: ``cpu`` or ``cuda``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from torchrec import EmbeddingCollection, EmbeddingConfig
        from torchrec.distributed.embedding import EmbeddingCollectionSharder
        from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
        from torchrec.distributed.planner.types import ParameterConstraints

    module = torch.nn.ModuleDict()
    for name, num_rows in sizes.items():
        config = EmbeddingConfig(
            name=name,
            embedding_dim=widths[name],
            num_embeddings=num_rows,
            feature_names=[name],
        )
        module[name] = EmbeddingCollection(tables=[config], device=torch.device("meta"))
    constraint = ParameterConstraints(sharding_types=["row_wise"], compute_kernels=["fused"])
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=num_ranks, compute_device=device),
        constraints=dict.fromkeys(sizes, constraint),
    )
    plan = planner.plan(module, [EmbeddingCollectionSharder()])
    found = {}
    for name in sizes:
        parameter = plan.plan[name][name]
        shards = parameter.sharding_spec.shards
        rows = tuple(shard.shard_sizes[0] for shard in shards)
        found[name] = TableSharding(parameter.sharding_type, parameter.compute_kernel, rows)
    return found
