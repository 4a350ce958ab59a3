"""Puts the parts of sampled propagation together on one rank."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog, Features
from egra_dist.config import PropagationSettings, TrainingSettings
from egra_dist.graph.csr import Csr
from egra_dist.graph.neighborhood import ModalitySampler, NeighborhoodSampler
from egra_dist.graph.partition import NodePartition
from egra_dist.graph.sampler import FanOut
from egra_dist.model.batch import Triplets
from egra_dist.model.egra import Egra
from egra_dist.model.recommender import Recommender
from egra_dist.model.tables import EmbeddingTables, FusedTables, keyed
from egra_dist.train.batches import TripletBatches
from egra_dist.train.inference import Graphs, LayerwiseInference
from egra_dist.train.memory import map_pages
from egra_dist.train.pipelining import distributed_ahead
from egra_dist.train.propagation import SampledBatch, SampledPropagation
from egra_dist.train.surroundings import Surroundings
from egra_dist.train.task import Task


def sampled_propagation(
    task: Task,
    catalog: Catalog,
    nodes: NodePartition,
    model: Recommender,
    tables: EmbeddingTables,
    batches: TripletBatches,
    device: torch.device,
) -> SampledPropagation:
    """Sampled steps and layer-wise inference over the graphs that the task names."""
    assert isinstance(model, Egra), "the settings refuse to sample other models"
    settings = task.settings
    graphs = Graphs(
        Csr.load(task.graphs.behavior),
        Csr.load(task.graphs.plain),
        {name: Csr.load(folder) for name, folder in task.graphs.features.items()},
    )
    features = {name: catalog.features(name) for name in graphs.features}
    map_pages(_read_at_random(graphs, features, catalog.num_users))
    sampler = neighborhood_sampler(graphs, catalog.num_users, settings)
    is_fused = isinstance(tables, FusedTables)
    surroundings = Surroundings(
        sampler,
        features,
        nodes,
        task.seed,
        device_of_batches(tables, device),
        keyed if is_fused else None,
    )
    inference = LayerwiseInference(
        model,
        tables,
        nodes,
        graphs,
        features,
        settings.model.num_layers,
        task.folder / "inference",
        device,
    )
    pipelined = _pipelined(tables, device)
    if pipelined is None:
        return SampledPropagation(model, tables, batches, surroundings, inference)

    def surround(shares: Sequence[Triplets], epoch: int, step: int) -> SampledBatch:
        return surroundings(shares, epoch, step).pin_memory()

    ahead = partial(distributed_ahead, tables=pipelined, device=device)
    return SampledPropagation(model, tables, batches, surround, inference, ahead)


def device_of_batches(tables: EmbeddingTables, device: torch.device) -> torch.device:
    """Where batches are drawn: those that are pipelined go to the device while it computes."""
    return torch.device("cpu") if _pipelined(tables, device) else device


def _pipelined(tables: EmbeddingTables, device: torch.device) -> FusedTables | None:
    """Tables whose lookups are begun ahead; without streams there is nothing to gain."""
    return tables if isinstance(tables, FusedTables) and device.type == "cuda" else None


def _read_at_random(
    graphs: Graphs, features: Mapping[str, Features], num_users: int
) -> Iterator[NDArray]:
    """What batches read here and there; of the plain graph only the rows of users."""
    for graph in (graphs.behavior, *graphs.features.values()):
        yield from (graph.indptr, graph.indices)
        if graph.values is not None:
            yield graph.values
    yield from (modality.values for modality in features.values())
    if features:
        stop = int(graphs.plain.indptr[num_users])
        yield from (graphs.plain.indptr[: num_users + 1], graphs.plain.indices[:stop])
        if graphs.plain.values is not None:
            yield graphs.plain.values[:stop]


def neighborhood_sampler(
    graphs: Graphs, num_users: int, settings: TrainingSettings
) -> NeighborhoodSampler:
    """Samples the graphs with the fan-outs of the settings."""
    propagation = settings.propagation
    modalities = None
    if graphs.features:
        modalities = ModalitySampler(
            graphs.plain,
            graphs.features,
            num_users,
            propagation.modality_items,
            propagation.feature_neighbors,
        )
    fan_outs = layer_fan_outs(propagation, settings.model.num_layers)
    return NeighborhoodSampler(graphs.behavior, num_users, fan_outs, modalities)


def layer_fan_outs(settings: PropagationSettings, num_layers: int) -> list[FanOut]:
    """The fan-outs of each layer; the last ones that are given hold for all beyond."""
    return [FanOut(*settings.fan_outs(layer)) for layer in range(num_layers)]
