"""Puts the parts of sampled propagation together on one rank."""

import torch

from egra_dist.catalog.catalog import Catalog
from egra_dist.config import PropagationSettings, TrainingSettings
from egra_dist.graph.csr import Csr
from egra_dist.graph.neighborhood import ModalitySampler, NeighborhoodSampler
from egra_dist.graph.partition import NodePartition
from egra_dist.graph.sampler import FanOut
from egra_dist.model.egra import Egra
from egra_dist.model.recommender import Recommender
from egra_dist.model.tables import EmbeddingTables
from egra_dist.train.batches import TripletBatches
from egra_dist.train.inference import Graphs, LayerwiseInference
from egra_dist.train.propagation import SampledPropagation
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
    sampler = neighborhood_sampler(graphs, catalog.num_users, settings)
    surroundings = Surroundings(sampler, features, nodes, task.seed, device)
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
    return SampledPropagation(model, tables, batches, surroundings, inference)


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
