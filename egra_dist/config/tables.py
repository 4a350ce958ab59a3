"""The embedding tables: how they are updated, looked up and sharded."""

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
