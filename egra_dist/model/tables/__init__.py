"""The user and item embedding tables, sharded by TorchRec.

Two ways to look rows up. Direct tables are row-wise, and the shard itself is the parameter: an
ordinary torch optimizer updates the storage that TorchRec's checkpoints see. Exact propagation
reads every local row in every step, so that no row travels to be looked up and nothing is sorted;
sampled propagation looks a batch's rows up wherever they live. On a CPU that is cheaper than
FBGEMM's fused kernels (``tests/benchmarks/tables.py``, docs/scale.md). Fused tables are looked up
by TorchRec and updated by those kernels, and are sharded as its planner finds best.
"""

from egra_dist.model.tables.base import ITEM, USER, EmbeddingTables, TableShard
from egra_dist.model.tables.direct import DirectTables
from egra_dist.model.tables.fused import FusedTables, keyed
from egra_dist.model.tables.planning import planned_tables

__all__ = [
    "ITEM",
    "USER",
    "DirectTables",
    "EmbeddingTables",
    "FusedTables",
    "TableShard",
    "keyed",
    "planned_tables",
]
