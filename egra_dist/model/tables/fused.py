"""Tables that TorchRec looks up and FBGEMM's fused kernels update, in the backward pass."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from egra_dist.config import OptimizerSettings, TableSettings
from egra_dist.model.tables.base import ROWS_AT_ONCE, EmbeddingTables, Lookup, TableShard
from egra_dist.model.tables.planning import planned_tables, sharded_model

_OPTIMIZERS = {"rowwise_adagrad": "EXACT_ROWWISE_ADAGRAD", "adam": "ADAM"}
_ON_CPU = ("rowwise_adagrad",)
"""What FBGEMM has kernels for."""
_EPS = 1e-8


@dataclass(frozen=True)
class _Keyed:
    ids: Mapping[str, Tensor]
    features: Any


def keyed(ids: Mapping[str, Tensor]) -> Any:
    """A ``KeyedJaggedTensor`` of one sample that has all ids of every table.

    Args:
        ids: Of each table distinct rows, ``int64 [num_rows]``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchrec import KeyedJaggedTensor

    counts = [len(rows) for rows in ids.values()]
    values = torch.cat(list(ids.values()))
    lengths = torch.tensor(counts, device=values.device)
    # The counts are known here: TorchRec need not wait for the device to tell them.
    return KeyedJaggedTensor(list(ids), values, lengths=lengths, stride=1, length_per_key=counts)


class FusedTables(EmbeddingTables):
    """Two tables, sharded as TorchRec's planner finds best; needs an initialised process group.

    Args:
        sizes: Rows of each table.
        widths: Columns of each table.
        device: Where the shards live.
        settings: What the planner may choose from.
        optimizer: How rows are updated.

    Raises:
        ValueError: If FBGEMM has no such optimizer, or no such kernel, for the device.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        widths: Mapping[str, int],
        device: torch.device,
        settings: TableSettings,
        optimizer: OptimizerSettings,
    ) -> None:
        _check(device, settings, optimizer)
        params = _fused_params(optimizer)
        planned = planned_tables(
            sizes,
            widths,
            dist.get_world_size(),
            device.type,
            settings=settings,
            fused_params=params,
        )
        self.module, sharded = sharded_model(planned, device)
        super().__init__(sizes, widths, sharded)
        self._device = device
        self._optimizer_name = optimizer.tables
        self._kernels = list(_kernels(self.module))
        self._managed = dict(_managed(self.module))
        self._num_lookups = torch.zeros((), dtype=torch.int64)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The fused optimizer; a step or ``zero_grad`` only tells the kernels its learning rate."""
        return cast("torch.optim.Optimizer", self.module.fused_optimizer)

    def lookup(self, ids: Mapping[str, Tensor]) -> Tensor:
        """See :meth:`EmbeddingTables.lookup`; the backward pass updates the rows."""
        return self.lookup_batch(_Keyed(ids, keyed(ids)))

    def lookup_batch(self, batch: Lookup) -> Tensor:
        """See :meth:`EmbeddingTables.lookup_batch`; the backward pass updates the rows."""
        if torch.is_grad_enabled():
            self._num_lookups += 1
        return self.module(batch)

    def shards(self, table: str) -> list[TableShard]:
        """See :meth:`EmbeddingTables.shards`."""
        found = [
            TableShard(*_place(config.local_metadata), weight)
            for kernel in self._kernels
            for config, weight in zip(
                kernel.config.embedding_tables, kernel.split_embedding_weights(), strict=True
            )
            if config.name == table
        ]
        dim = self.width(table)
        return found or [TableShard(slice(0, 0), slice(0, dim), self._empty(dim))]

    def optimizer_state(self, table: str) -> dict[str, list[Tensor]]:
        """State of a table's optimizer, one tensor for each of :meth:`shards`.

        E.g. ``sum [num_rows]``; and what belongs to no row as a single value.
        """
        found = [
            state
            for kernel in self._kernels
            for config, state in zip(
                kernel.config.embedding_tables,
                kernel.emb_module.get_optimizer_state(),
                strict=True,
            )
            if config.name == table
        ]
        if self._optimizer_name == "rowwise_adagrad":
            return {"sum": [state["sum"] for state in found] or [self._empty()]}
        moments = ("exp_avg", "exp_avg_sq")
        empty = self._empty(self.width(table))
        return {
            "step": [self._num_lookups],
            **{name: [state[name] for state in found] or [empty] for name in moments},
        }

    def own_rows(self, table: str) -> Iterator[tuple[slice, Tensor]]:
        """See :meth:`EmbeddingTables.own_rows`; looked up, as others may hold them."""
        partition = self.partition(table)
        own = partition.block(dist.get_rank())
        # The first rank's block is the largest: all ranks look up as often as it does.
        for start in range(own.start, own.start + partition.size(0), ROWS_AT_ONCE):
            rows = slice(min(start, own.stop), min(start + ROWS_AT_ONCE, own.stop))
            ids = dict.fromkeys(self._sizes, self._empty().long())
            ids[table] = torch.arange(rows.start, rows.stop, device=self._device)
            self.module.eval()  # nobody gets or loses a row
            with torch.no_grad():
                values = self.lookup(ids)
            self.module.train()
            yield rows, values
        self._set_num_lookups()

    def mapping_state(self, table: str) -> dict[str, list[Tensor]]:
        """See :meth:`EmbeddingTables.mapping_state`."""
        managed = self._managed.get(table)
        if managed is None:
            return {}
        state = {name.lstrip("_"): value for name, value in managed.state_dict().items()}
        counted = state.pop("current_iter_tensor")
        del state["output_segments_tensor"]
        return {name: [value] for name, value in state.items()} | {"steps": [counted.view(())]}

    def metrics(self) -> dict[str, float]:
        """See :meth:`EmbeddingTables.metrics`; of tables whose collisions are managed."""
        found: dict[str, float] = {}
        for table, managed in self._managed.items():
            counts = torch.cat([managed.counts, managed.num_taken()[None]])
            managed.counts.zero_()
            dist.all_reduce(counts)
            seen, without, evicted, taken = counts.tolist()
            found |= {
                f"tables/{table}_collision_rate": without / max(seen, 1),
                f"tables/{table}_eviction_rate": evicted / self._num_rows[table],
                f"tables/{table}_occupancy": taken / self._num_rows[table],
            }
        return found

    def flush(self) -> None:
        """See :meth:`EmbeddingTables.flush`."""
        for kernel in self._kernels:
            kernel.flush()

    def purge(self) -> None:
        """See :meth:`EmbeddingTables.purge`."""
        for kernel in self._kernels:
            kernel.purge()
        for managed in self._managed.values():
            managed.forget()
        self._set_num_lookups()

    def _empty(self, *width: int) -> Tensor:
        return torch.empty(0, *width, device=self._device)

    def _set_num_lookups(self) -> None:
        """Kernels count lookups as Adam's steps: not those of an evaluation, and those before."""
        for kernel in self._kernels if self._optimizer_name == "adam" else ():
            kernel.emb_module.iter.fill_(int(self._num_lookups))
            kernel.emb_module.iter_cpu.zero_()  # taken from the other before the next step


def _check(device: torch.device, settings: TableSettings, optimizer: OptimizerSettings) -> None:
    if device.type == "cuda":
        return
    if optimizer.tables not in _ON_CPU:
        raise ValueError(
            f"optimizer.tables = {optimizer.tables!r}: FBGEMM has no such kernel on a CPU; "
            f"allowed with tables.lookup = 'torchrec': {', '.join(_ON_CPU)}"
        )
    if settings.kernel != "fused":
        raise ValueError(
            f"tables.kernel = {settings.kernel!r}: needs a GPU; allowed on a CPU: fused"
        )


def _fused_params(settings: OptimizerSettings) -> dict[str, Any]:
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from torchrec.distributed.comm_ops import set_gradient_division

    # Losses are sums over the ranks' shares of a batch, not means.
    set_gradient_division(False)
    return {
        "optimizer": EmbOptimType[_OPTIMIZERS[settings.tables]],
        "learning_rate": settings.learning_rate,
        "eps": _EPS,
    }


def _kernels(model: nn.Module) -> Iterator[Any]:
    from torchrec.distributed.batched_embedding_kernel import BatchedFusedEmbedding

    for collection in model.modules():
        # A plain list: torch does not see the modules in it.
        for lookup in getattr(collection, "_lookups", ()):
            for part in lookup.modules():
                if isinstance(part, BatchedFusedEmbedding):
                    yield part


def _managed(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """What maps the ids of tables to rows, where that is not the rows' own numbers."""
    for part in model.modules():
        yield from getattr(part, "_managed_collision_modules", nn.ModuleDict()).items()


def _place(metadata: Any) -> tuple[slice, slice]:
    pairs = zip(metadata.shard_offsets, metadata.shard_sizes, strict=True)
    rows, columns = (slice(first, first + size) for first, size in pairs)
    return rows, columns
