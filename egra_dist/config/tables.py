"""The embedding tables: how they are updated, looked up and sharded."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from egra_dist.config.base import PositiveFloat, PositiveInt, Settings


class OptimizerSettings(Settings):
    """Embedding tables and dense parameters each have their own optimizer."""

    tables: Literal["adam", "rowwise_adagrad"] = "adam"
    """Optimizer of the sharded user and item tables."""
    learning_rate: PositiveFloat = 1e-3
    """Learning rate of the tables."""
    table_type: Literal["float32", "bfloat16"] = "float32"
    """Type of the tables; ``bfloat16`` halves their memory and what travels between workers. It
    needs sampled propagation and ``rowwise_adagrad``, which rounds updates at random."""
    dense_learning_rate: PositiveFloat = 1e-3
    """Learning rate of the dense parameters (always Adam)."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.96
    """Both rates are multiplied by ``decay ** (epoch / decay_epochs)``."""
    decay_epochs: PositiveInt = 50
    """See ``decay``."""


class ManagedCollisionSettings(Settings):
    """Fewer rows than ids: rows go to the ids that are seen, and leave those that no longer are."""

    user_rows: Annotated[int, Field(ge=2)] | None = None
    """Rows of the user table; one for each user when not given."""
    item_rows: Annotated[int, Field(ge=2)] | None = None
    """Rows of the item table; one for each item when not given."""
    eviction: Literal["lfu", "lru", "distance_lfu"] = "distance_lfu"
    """Which ids lose their row first: those seen least often, those not seen for longest, or by
    both."""
    interval: PositiveInt = 100
    """Steps between two times that rows are given away."""

    @property
    def is_used(self) -> bool:
        """Whether a table has fewer rows than ids."""
        return self.user_rows is not None or self.item_rows is not None


class TableSettings(Settings):
    """Where the rows of the tables are, and how a sampled step looks them up."""

    lookup: Literal["direct", "torchrec"] = "direct"
    """Rows are asked for by an exchange of the project's own and updated by an ordinary optimizer,
    which is faster on CPUs; or looked up by TorchRec and updated by FBGEMM's fused kernels, which
    the other settings here are for."""
    sharding: Annotated[
        list[Literal["row_wise", "table_wise", "column_wise"]], Field(min_length=1)
    ] = ["row_wise"]
    """Ways to shard a table. Of several, TorchRec's planner chooses for each table."""
    column_width: Annotated[int, Field(ge=4, multiple_of=4)] = 32
    """Columns of a shard where a table is sharded column-wise."""
    kernel: Literal["fused", "fused_uvm", "fused_uvm_caching"] = "fused"
    """Rows in the device's memory; in the host's, which a GPU reads; or there with a cache on the
    GPU. The latter two on GPUs alone."""
    cache_load_factor: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the rows that the cache of ``fused_uvm_caching`` has room for."""
    device_memory_gib: PositiveFloat | None = None
    """Memory of a GPU, for the planner; TorchRec's own guess when not given."""
    host_memory_gib: PositiveFloat | None = None
    """Memory of the host for one worker, for the planner; TorchRec's own guess when not given."""

    managed_collision: ManagedCollisionSettings = ManagedCollisionSettings()

    def num_rows(self, num_ids: Mapping[str, int]) -> dict[str, int]:
        """Rows of the tables ``user`` and ``item``, which have so many ids."""
        managed = self.managed_collision
        rows = {"user": managed.user_rows, "item": managed.item_rows}
        return {table: rows.get(table) or number for table, number in num_ids.items()}

    @model_validator(mode="after")
    def _collisions_can_be_managed(self) -> "TableSettings":
        if not self.managed_collision.is_used:
            return self
        if self.lookup == "direct":
            raise ValueError("tables.managed_collision: needs tables.lookup = 'torchrec'")
        if self.sharding != ["row_wise"]:
            raise ValueError(
                f"tables.sharding = {self.sharding!r}: only ['row_wise'] with managed_collision"
            )
        if self.kernel == "fused_uvm_caching":
            raise ValueError(
                "tables.kernel = 'fused_uvm_caching': only 'fused' and 'fused_uvm' with "
                "managed_collision"
            )
        return self

    @model_validator(mode="after")
    def _torchrec_is_needed(self) -> "TableSettings":
        allowed = {"sharding": ["row_wise"], "kernel": "fused"}
        for name, value in allowed.items() if self.lookup == "direct" else ():
            if getattr(self, name) != value:
                raise ValueError(
                    f"tables.{name} = {getattr(self, name)!r}: needs tables.lookup = 'torchrec'; "
                    f"with 'direct' it is {value!r}"
                )
        return self
