"""TorchRec's own word on how the tables will be sharded, and on how they were."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHARDING = "sharding.json"
"""What a training leaves: where the rows of its tables were."""


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
    from egra_dist.model.tables import planned_tables

    module, planner, sharders = planned_tables(sizes, widths, num_ranks, device)
    plan = planner.plan(module, sharders)
    found = {}
    for name in sizes:
        parameter = plan.plan[f"tables.{name}"][name]
        shards = parameter.sharding_spec.shards
        rows = tuple(shard.shard_sizes[0] for shard in shards)
        found[name] = TableSharding(parameter.sharding_type, parameter.compute_kernel, rows)
    return found


def actual_sharding(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Where the rows of each table are, from its ``ShardedTensor``; JSON-serialisable."""
    found = {}
    for name, tensor in tables.items():
        metadata = tensor.metadata()
        shards = [
            {
                "first_row": shard.shard_offsets[0],
                "rows": shard.shard_sizes[0],
                "placement": str(shard.placement),
            }
            for shard in metadata.shards_metadata
        ]
        found[name] = {"rows": metadata.size[0], "dim": metadata.size[1], "shards": shards}
    return found
