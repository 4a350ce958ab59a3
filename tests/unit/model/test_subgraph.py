"""Sampled propagation of whole models: on average that of the whole graph."""

import numpy as np
import pytest
import torch
from dense import DIM, NUM_ITEMS, NUM_USERS, World, mean_of_powers

from egra_dist.catalog.catalog import Features
from egra_dist.config import TrainingSettings
from egra_dist.graph.neighborhood import ModalitySampler, NeighborhoodSampler
from egra_dist.graph.partition import NodePartition, RowPartition
from egra_dist.graph.sampler import FanOut
from egra_dist.model.batch import Triplets
from egra_dist.model.egra import Egra
from egra_dist.model.modality import ModalityBranch
from egra_dist.train.surroundings import Surroundings
from tests.matrices import csr_of

NUM_LAYERS = 3
EVERYTHING = 1000


class Sampled:
    """A model over the world, its sampler, and what exact propagation gives its nodes."""

    def __init__(self, fan_out):
        world = World(TrainingSettings(model={"name": "egra", "dim": DIM}))
        self.graph = merged(world)
        features = {m: x.numpy() for m, x in world.features.items()}
        item_graphs = world.item_graphs()
        sampler = NeighborhoodSampler(
            csr_of(self.graph),
            NUM_USERS,
            [FanOut(fan_out, fan_out)] * NUM_LAYERS,
            ModalitySampler(
                csr_of(world.behavior),
                {m: csr_of(graph) for m, graph in item_graphs.items()},
                NUM_USERS,
                fan_out,
                fan_out,
            ),
        )
        nodes = NodePartition(RowPartition.even(NUM_USERS, 1), RowPartition.even(NUM_ITEMS, 1))
        self.surround = Surroundings(
            sampler,
            {m: Features(x, (x != 0).any(1)) for m, x in features.items()},
            nodes,
            0,
            torch.device("cpu"),
        )
        torch.manual_seed(0)
        branch = ModalityBranch({m: x.shape[1] for m, x in features.items()}, DIM, None)
        self.model = Egra(*world.common, None, branch)
        self.tables = [table.detach() for table in world.tables()]
        self.behavior = mean_of_powers(self.graph, torch.cat(self.tables).double(), NUM_LAYERS)
        self.modalities = exact_modalities(world, branch, self.tables[1], item_graphs)

    def estimate(self, triplets, step):
        batch = self.surround([triplets], 0, step)
        pairs = zip(self.tables, batch.ids.values(), strict=True)
        embeddings = torch.cat([table.index_select(0, ids) for table, ids in pairs])
        with torch.no_grad():
            return self.model.propagate_sample(embeddings, batch.subgraph).repeated()


def merged(world):
    """``N(A)`` with some item-item edges, of any weight."""
    graph = world.behavior.copy()
    random = np.random.default_rng(7)
    items = random.random((NUM_ITEMS, NUM_ITEMS)) * (random.random((NUM_ITEMS, NUM_ITEMS)) < 0.5)
    graph[NUM_USERS:, NUM_USERS:] = 0.3 * items
    return graph


def exact_modalities(world, branch, items, item_graphs):
    views = []
    with torch.no_grad():
        for m, x in world.features.items():
            purified = branch.purified(m, items, x, (x != 0).any(1)).double()
            own = torch.as_tensor(item_graphs[m]) @ purified
            views.append(
                torch.cat([torch.as_tensor(world.behavior[:NUM_USERS, NUM_USERS:]) @ own, own])
            )
    return torch.cat(views, dim=1)


def all_nodes():
    """Every user and item is in the batch, some twice."""
    users = torch.arange(NUM_ITEMS) % NUM_USERS
    items = torch.arange(NUM_ITEMS) + NUM_USERS
    return Triplets(users, items, items.flip(0))


def test_all_neighbors_give_the_exact_rows():
    sampled, triplets = Sampled(EVERYTHING), all_nodes()
    rows = sampled.estimate(triplets, 0)
    wanted = triplets.nodes()
    torch.testing.assert_close(
        rows.behavior.double(), sampled.behavior[wanted], rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        rows.modalities.double(), sampled.modalities[wanted], rtol=1e-4, atol=1e-6
    )


@pytest.fixture(scope="module")
def drawn():
    """Of few neighbours: 256 draws of the same rows, and the exact ones."""
    sampled, triplets = Sampled(2), all_nodes()
    rows = [sampled.estimate(triplets, step) for step in range(256)]
    nodes = triplets.nodes()
    return {
        name: (
            torch.stack([getattr(r, name) for r in rows]).double(),
            getattr(sampled, name)[nodes],
        )
        for name in ("behavior", "modalities")
    }


@pytest.mark.parametrize("branch", ["behavior", "modalities"])
def test_mean_over_draws_converges_to_the_exact_rows(drawn, branch):
    """Three layers: the draws of one layer know nothing of another's."""
    draws, exact = drawn[branch]
    errors = []
    for count in (4, 32, 256):
        means = draws.view(-1, count, *exact.shape).mean(1)
        errors.append((means - exact).square().mean().sqrt().item())
    slopes = np.diff(np.log(errors)) / np.log(8)
    np.testing.assert_allclose(slopes, -0.5, atol=0.12)
    assert errors[-1] < 0.15 * exact.square().mean().sqrt()
