"""TorchRec's own word on how the tables will be sharded, and on how they were."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from egra_dist.config import TableSettings

SHARDING = "sharding.json"
"""What a training leaves: where the rows of its tables were."""


@dataclass(frozen=True)
class TableSharding:
    """How one table is sharded.

    Attributes:
        sharding: E.g. ``row_wise``.
        kernel: E.g. ``fused``.
        ranks: Who has each shard.
        rows: Rows of each shard.
        columns: Columns of each shard.
    """

    sharding: str
    kernel: str
    ranks: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]


def plan_sharding(
    sizes: Mapping[str, int],
    widths: Mapping[str, int],
    num_ranks: int,
    device: str,
    settings: TableSettings | None = None,
) -> dict[str, TableSharding]:
    """Asks TorchRec's planner, as :mod:`egra_dist.model.tables` does.

    Args:
        sizes: Rows of each table.
        widths: Columns of each table.
        num_ranks: Number of workers.
        device: ``cpu`` or ``cuda``; none has to be here.
        settings: What the planner may choose from; the defaults when None.

    Raises:
        UserError: If the tables do not fit.
    """
    from egra_dist.model.tables.planning import planned_tables, planner_errors_named

    module, planner, sharders = planned_tables(sizes, widths, num_ranks, device, settings=settings)
    with planner_errors_named():
        plan = planner.plan(module, sharders)
    return {name: _described(plan.plan[f"tables.{name}"][name]) for name in sizes}


def _described(parameter: Any) -> TableSharding:
    shards = parameter.sharding_spec.shards
    rows, columns = zip(*(shard.shard_sizes for shard in shards), strict=True)
    ranks = tuple(shard.placement.rank() for shard in shards)
    return TableSharding(parameter.sharding_type, parameter.compute_kernel, ranks, rows, columns)


def actual_sharding(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Where the rows of each table are, from its ``ShardedTensor``; JSON-serialisable."""
    found = {}
    for name, tensor in tables.items():
        metadata = tensor.metadata()
        shards = [
            {
                "first_row": shard.shard_offsets[0],
                "rows": shard.shard_sizes[0],
                "first_column": shard.shard_offsets[1],
                "columns": shard.shard_sizes[1],
                "placement": str(shard.placement),
            }
            for shard in metadata.shards_metadata
        ]
        found[name] = {"rows": metadata.size[0], "dim": metadata.size[1], "shards": shards}
    return found
