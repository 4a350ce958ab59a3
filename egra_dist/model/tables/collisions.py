"""Tables with fewer rows than ids: TorchRec's managed collisions, counted, and kept on any device.

Imported where such tables are made alone, as it needs TorchRec.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchrec import EmbeddingCollection, EmbeddingConfig
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.mc_embedding import (
    ManagedCollisionEmbeddingCollectionSharder,
    ShardedManagedCollisionEmbeddingCollection,
)
from torchrec.modules.mc_embedding_modules import ManagedCollisionEmbeddingCollection
from torchrec.modules.mc_modules import (
    DistanceLFU_EvictionPolicy,
    LFU_EvictionPolicy,
    LRU_EvictionPolicy,
    ManagedCollisionCollection,
    MCHManagedCollisionModule,
)

from egra_dist.config import ManagedCollisionSettings

_POLICIES = {
    "lfu": LFU_EvictionPolicy,
    "lru": LRU_EvictionPolicy,
    "distance_lfu": DistanceLFU_EvictionPolicy,
}
_NO_ID = torch.iinfo(torch.int64).max


class CountedCollisions(MCHManagedCollisionModule):
    """Maps ids to rows, and counts how often that fails.

    The last row of a shard is that of all ids which have none of their own.

    Attributes:
        counts: Since the last report ids that were looked up, those without a row, and rows that
            were taken from an id, ``float64 [3]``.
    """

    _input_history_buffer_size: int

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.counts = torch.zeros(3, dtype=torch.float64, device=self.device)

    def profile(self, features: dict[str, Any]) -> dict[str, Any]:
        """Notes which ids are seen; rows are given away at the end of an interval."""
        if self.training:
            self._make_room(sum(len(feature.values()) for feature in features.values()))
        return super().profile(features)

    def remap(self, features: dict[str, Any], *args: Any, **more: Any) -> dict[str, Any]:
        """Rows of ids."""
        found = super().remap(features, *args, **more)
        if self.training:
            rows = torch.cat([feature.values() for feature in found.values()])
            without = self._output_global_offset + self._zch_size - 1
            self.counts[0] += len(rows)
            self.counts[1] += (rows == without).sum()
        return found

    def num_taken(self) -> Tensor:
        """Rows that belong to an id, ``int64 []``."""
        return (self._mch_sorted_raw_ids != _NO_ID).sum()

    def new_rows(self, num_rows: int, dim: int) -> Tensor:
        """What rows begin with that change hands, ``[num_rows, dim]``: uniform as all rows did."""
        bound = (6.0 / (self._zch_size * self._buckets + dim)) ** 0.5
        seed = self._current_iter * 1_000_003 + self._output_global_offset
        generator = torch.Generator().manual_seed(seed)  # a checkpoint knows what it is made of
        return torch.empty(num_rows, dim).uniform_(-bound, bound, generator=generator)

    def forget(self) -> None:
        """Goes on from a mapping that was loaded: what was seen since rows changed hands is not."""
        self._current_iter = -1
        self._current_history_buffer_offset = 0

    def _update_and_evict(self, *args: Any, **more: Any) -> None:
        before = self._mch_sorted_raw_ids.clone()
        super()._update_and_evict(*args, **more)
        stays = torch.isin(before, self._mch_sorted_raw_ids)
        self.counts[2] += ((before != _NO_ID) & ~stays).sum()

    def _make_room(self, num_ids: int) -> None:
        """For the ids of a step; TorchRec has room for steps like the first, which may be small."""
        filled = self._current_history_buffer_offset
        if filled + num_ids <= self._input_history_buffer_size:
            return
        self._input_history_buffer_size = 2 * (filled + num_ids)
        old = {"": getattr(self, "_history_accumulator", None), **self._history_metadata}
        for name in ["", *(name for name, _, has_history in self._infos() if has_history)]:
            grown = torch.zeros(
                self._input_history_buffer_size, dtype=torch.int64, device=self.device
            )
            if filled:
                grown[:filled] = old[name][:filled]
            if name:
                self._history_metadata[name] = grown
            else:
                self._history_accumulator = grown

    def _infos(self) -> Any:
        return self._eviction_policy.metadata_info


class _ShardedCollection(ShardedManagedCollisionEmbeddingCollection):
    """Rows that change hands start anew; FBGEMM has a kernel for that on GPUs alone."""

    def _evict(self, evictions_per_table: Mapping[str, Tensor | None]) -> None:
        for table, rows in evictions_per_table.items():
            if rows is None:
                continue
            kernel, index = self._table_to_tbe_and_index[table]
            weights = kernel.split_embedding_weights()[int(index)]
            managed = self._managed_collision_collection._managed_collision_modules[table]
            weights[rows] = managed.new_rows(len(rows), weights.shape[1]).to(weights)
            for state in kernel.get_optimizer_state()[int(index)].values():
                state[rows] = 0


class CollisionSharder(ManagedCollisionEmbeddingCollectionSharder):
    """Shards managed tables row-wise.

    Args:
        fused_params: How FBGEMM's kernels update rows.
    """

    def __init__(self, fused_params: dict[str, Any] | None) -> None:
        super().__init__(EmbeddingCollectionSharder(fused_params))

    def shard(
        self,
        module: nn.Module,
        params: dict[str, Any],
        env: Any,
        device: torch.device | None = None,
        module_fqn: str | None = None,
    ) -> nn.Module:
        """Makes the shards of this rank."""
        return _ShardedCollection(
            module,
            params,
            ec_sharder=self._e_sharder,
            mc_sharder=self._mc_sharder,
            env=env,
            device=device,
        )

    @property
    def sharded_module_type(self) -> type[nn.Module]:
        """Type of what :meth:`shard` returns."""
        return _ShardedCollection


def managed_collection(
    config: EmbeddingConfig, num_ids: int, num_ranks: int, settings: ManagedCollisionSettings
) -> nn.Module:
    """A table whose rows are given to the ids that are seen, without its rows.

    Args:
        config: The table.
        num_ids: Ids are below this number.
        num_ranks: Number of workers, each of which maps its block of ids to its block of rows.
        settings: Who loses a row, and when.
    """
    module = CountedCollisions(
        zch_size=config.num_embeddings,
        device=torch.device("meta"),
        eviction_policy=_POLICIES[settings.eviction](),
        eviction_interval=settings.interval,
        input_hash_size=num_ids,
        buckets=num_ranks,
    )
    return ManagedCollisionEmbeddingCollection(
        EmbeddingCollection(tables=[config], device=torch.device("meta")),
        ManagedCollisionCollection({config.name: module}, [config]),
    )
