"""Modality dropout in EGRA: a dropped modality is as if it were missing, in training alone."""

from dataclasses import replace

import pytest
import torch
from dense import DIM, NUM_ITEMS, NUM_USERS, World, partitioned

from egra_dist.config import TrainingSettings
from egra_dist.model import egra
from egra_dist.model.batch import Triplets
from egra_dist.model.egra import Egra
from egra_dist.model.modality import ModalityBranch, WholeModalityGraph


def build(dropout):
    model = {"name": "egra", "dim": DIM, "modality_dropout": dropout}
    alignment = {"ramp": "constant", "lambda_max": 0.1}
    world = World(TrainingSettings(model=model, alignment=alignment))
    torch.manual_seed(0)
    graph = WholeModalityGraph(
        world.features,
        {name: (values != 0).any(1) for name, values in world.features.items()},
        {name: partitioned(graph) for name, graph in world.item_graphs().items()},
        partitioned(world.behavior[:NUM_USERS, NUM_USERS:]),
    )
    branch = ModalityBranch({name: x.shape[1] for name, x in world.features.items()}, DIM, graph)
    return Egra(*world.common, partitioned(world.behavior), branch), world


def batch_rows(model, world, triplets, tables=None):
    rows = model.propagate(*(tables or world.tables()))
    return model.rows_of(rows, [triplets]).repeated()


def large_batch(size=2000):
    random = torch.Generator().manual_seed(5)
    users = torch.randint(NUM_USERS, (size,), generator=random)
    items = torch.randint(NUM_ITEMS, (2, size), generator=random) + NUM_USERS
    return Triplets(users, items[0], items[1])


def test_dropped_modality_is_as_if_it_had_not_arrived(monkeypatch):
    model, world = build(0.4)
    triplets = world.triplets()
    rows = batch_rows(model, world, triplets)
    masks = []

    def remembered(*arguments):
        masks.append(original(*arguments))
        return masks[-1]

    original = egra.keep_mask
    monkeypatch.setattr(egra, "keep_mask", remembered)
    trained = model.represent_batch(rows, [triplets], step=2)
    kept = torch.cat(masks)
    assert kept.shape == (3 * len(triplets), 2)
    without = rows.modalities.view(-1, 2, DIM) * kept[:, :, None]
    expected = model.represent(replace(rows, modalities=without.flatten(1)))
    torch.testing.assert_close(trained.side, expected.side)
    torch.testing.assert_close(trained.final, rows.behavior + expected.side)
    dropped = ~kept.any(1)
    assert torch.equal(trained.side[dropped], torch.zeros(int(dropped.sum()), DIM))
    one_left = kept.sum(1) == 1  # nobody to be told apart from: attention is all its own
    views = (rows.modalities.view(-1, 2, DIM) * kept[:, :, None]).sum(1)
    torch.testing.assert_close(trained.side[one_left], views[one_left] / 3)


def test_share_of_rows_that_lose_a_modality():
    """Both are lost by the square of the share: each is drawn for itself."""
    model, world = build(0.3)
    triplets = large_batch()
    rows = batch_rows(model, world, triplets)
    rows = replace(rows, modalities=torch.ones_like(rows.modalities))
    side = model.represent_batch(rows, [triplets], step=0).side
    lost = (side == 0).all(1).float().mean().item()
    assert lost == pytest.approx(0.3**2, abs=0.015)


def test_every_step_drops_others_and_the_same_step_the_same():
    model, world = build(0.5)
    triplets = large_batch(50)
    rows = batch_rows(model, world, triplets)
    first, again, later = (model.represent_batch(rows, [triplets], step).side for step in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_nothing_is_dropped_where_vectors_are_shown_or_the_share_is_zero():
    model, world = build(0.9)
    plain, _ = build(0.0)
    triplets = world.triplets()
    rows = batch_rows(model, world, triplets)
    assert torch.equal(model.represent(rows).final, plain.represent(rows).final)
    assert torch.equal(
        plain.represent_batch(rows, [triplets], 0).final, plain.represent(rows).final
    )


def test_gradients_stay_small_where_every_modality_is_dropped():
    model, world = build(0.9)
    tables = world.tables()
    triplets = large_batch(200)
    model.losses(batch_rows(model, world, triplets, tables), [triplets], step=1).total.backward()
    for parameter in (*tables, *model.parameters()):
        assert parameter.grad.abs().max() < 10
