"""A plan: every training of a configuration on a catalogue and a cluster, and whether it fits."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from egra_dist.config import MAIN, Config, ItemGraphSettings
from egra_dist.plan import memory as formulas
from egra_dist.plan.sizes import Sizes
from egra_dist.plan.traffic import bytes_per_step

if TYPE_CHECKING:  # brings torch: only where a search is planned
    from egra_dist.graph.knn import KnnSettings

_PROBES, _DEVICE_PROBES = 10.0, 16.0
"""Lists that a row visits in a routed search, about; the search measures how many it takes."""
_SECONDS_PER_PREDICTED, _GROWTH = 1.65, 0.28
"""CPU seconds of a search over those of the cost model, which only compares methods: 36 against 22
for the million clustered vectors of ``docs/performance.md``, and beyond that the more the more rows
there are, as their clusters overlap: 1,063 against 335 for ten million."""


@dataclass(frozen=True)
class TrainingPlan:
    """What one training takes on its largest worker.

    Attributes:
        worker: Rows.
        memory: Bytes, by what they are for.
        bytes_per_step: Bytes that reach it from others in a step.
        steps_per_epoch: Global batches.
        fits: Whether the bytes are within the memory of a worker.
    """

    worker: formulas.Worker
    memory: Mapping[str, int]
    bytes_per_step: int
    steps_per_epoch: int
    fits: bool

    @property
    def total(self) -> int:
        """Bytes of all together."""
        return sum(self.memory.values())


@dataclass(frozen=True)
class _Processors:
    num_cpus: int
    num_gpus: int


@dataclass(frozen=True)
class SearchPlan:
    """What a search for neighbours takes.

    Attributes:
        num_rows: Vectors.
        dim: Their width.
        method: How they are searched.
        processor: What does it: ``core`` or ``GPU``.
        seconds: Predicted seconds of one.
        hours: The same on all that the workers have, in hours.
    """

    num_rows: int
    dim: int
    method: str
    processor: str
    seconds: float
    hours: float


@dataclass(frozen=True)
class Plan:
    """What a configuration takes.

    Attributes:
        num_users: Rows of the user table.
        num_items: Rows of the item table.
        num_workers: Workers.
        memory_per_worker: Bytes that each has.
        disk: Bytes of the matrices on disk, and of the features in the catalogue.
        searches: Neighbour searches, by what they search.
        trainings: By stage.
    """

    num_users: int
    num_items: int
    num_workers: int
    memory_per_worker: int
    disk: Mapping[str, int]
    searches: Mapping[str, SearchPlan]
    trainings: Mapping[str, TrainingPlan]

    @property
    def fits(self) -> bool:
        """Whether every training fits."""
        return all(training.fits for training in self.trainings.values())

    def as_json(self) -> dict[str, Any]:
        """All of it, with the verdict."""
        fields = asdict(self) | {"fits": self.fits}
        for stage, training in self.trainings.items():
            fields["trainings"][stage]["total"] = training.total
        return fields


def make_plan(config: Config, sizes: Sizes, num_workers: int, memory_per_worker: int) -> Plan:
    """Plans a run.

    Args:
        config: All settings.
        sizes: The catalogue.
        num_workers: Workers, instead of the configuration's.
        memory_per_worker: Bytes that each worker has for what it trains with.
    """
    trainings = {}
    for stage, training in config.trainings.items():
        if stage == "pretrain" and not _pretrains(config):
            continue
        graph = formulas.merged_graph_of(training, config.item_graph, stage == MAIN)
        k = _neighbors_of_features(config, graph)
        parts = formulas.memory(sizes, training, graph, k, num_workers)
        ranking = formulas.ranking_bytes(sizes, config.evaluation, num_workers)
        # What a step holds is gone when users are ranked.
        parts["ranking"] = max(0, ranking - parts["activations"])
        trainings[stage] = TrainingPlan(
            formulas.largest_worker(sizes, graph, k, num_workers),
            parts,
            bytes_per_step(sizes, training, graph, k, num_workers),
            -(-sizes.num_interactions // training.batch_size),
            sum(parts.values()) <= memory_per_worker,
        )
    cluster = config.cluster
    processors = _Processors(
        num_workers * (cluster.cpus_per_worker or 1), int(num_workers * cluster.gpus_per_worker)
    )
    searches = _searches(config, sizes, processors)
    return Plan(
        sizes.num_users,
        sizes.num_items,
        num_workers,
        memory_per_worker,
        disk_bytes(config, sizes),
        searches,
        trainings,
    )


def disk_bytes(config: Config, sizes: Sizes) -> dict[str, int]:
    """Bytes of the matrices that the stages write, and of float16 features."""
    nodes, interactions = sizes.num_nodes, sizes.num_interactions
    files = {
        "training": formulas.csr_bytes(sizes.num_users, interactions, has_values=False),
        "plain": formulas.csr_bytes(nodes, 2 * interactions),
    }
    for name in sizes.modalities:
        entries = sizes.num_items * config.feature_graph.k
        files[f"features/{name}"] = formulas.csr_bytes(sizes.num_items, entries)
    for stage, graph in config.item_graphs.items():
        edges = 2 * interactions + formulas.num_item_edges(sizes, graph)
        files[f"{stage}.behavior"] = formulas.csr_bytes(nodes, edges)
        if graph.modality_share:
            entries = sizes.num_items * _neighbors_of_features(config, graph)
            mixed = formulas.csr_bytes(sizes.num_items, entries)
            files |= {f"{stage}.features/{name}": mixed for name in sizes.modalities}
    files["feature tables"] = 2 * sizes.num_items * sum(sizes.modalities.values())
    return files


def _neighbors_of_features(config: Config, graph: ItemGraphSettings | None) -> int:
    """Most entries of an item's row in the modality branch's graphs."""
    added = graph.k if graph and graph.modality_share else 0
    return config.feature_graph.k + added


def _pretrains(config: Config) -> bool:
    return any(graph.is_pretrained for graph in config.item_graphs.values())


def _searches(config: Config, sizes: Sizes, processors: _Processors) -> dict[str, SearchPlan]:
    found = {
        f"features/{name}": _search(sizes.num_items, dim, config.feature_graph.k - 1, processors)
        for name, dim in sizes.modalities.items()
    }
    for stage, graph in config.item_graphs.items():
        found |= {
            f"{stage}.knn/{name}": _search(sizes.num_items, dim, graph.k, processors)
            for name, dim in _searched(config, sizes, graph).items()
        }
    return found


def _searched(config: Config, sizes: Sizes, graph: ItemGraphSettings) -> dict[str, int]:
    """Width of each table of vectors that an item graph is made from."""
    tables = dict(sizes.modalities) if graph.source in ("raw", "both") else {}
    if graph.is_pretrained or graph.source == "vectors":
        tables["vectors"] = config.pretrain.model.dim
    return tables


def _search(num_rows: int, dim: int, k: int, processors: _Processors) -> SearchPlan:
    from egra_dist.graph.knn import KnnSettings, cost

    settings = KnnSettings(k=k)
    if processors.num_gpus:
        return _search_on_gpus(num_rows, dim, settings, processors.num_gpus)
    choice = cost.choose(num_rows, dim, settings)
    if choice.method == "exact":
        seconds = cost.sweep_seconds(num_rows, dim)
    else:
        seconds = cost.routed_seconds(num_rows, dim, _PROBES, settings)
    seconds *= _SECONDS_PER_PREDICTED * max(1.0, num_rows / 1e6) ** _GROWTH
    hours = seconds / processors.num_cpus / 3600
    return SearchPlan(num_rows, dim, choice.method, "core", seconds, hours)


def _search_on_gpus(num_rows: int, dim: int, settings: "KnnSettings", num_gpus: int) -> SearchPlan:
    from egra_dist.graph.knn import cost

    method = cost.choose(num_rows, dim, settings, "cuda").method
    if method == "exact":
        seconds = cost.device_seconds(num_rows**2, dim)
    else:
        seconds = cost.device_routed_seconds(num_rows, dim, _DEVICE_PROBES)
    return SearchPlan(num_rows, dim, method, "GPU", seconds, seconds / num_gpus / 3600)
