"""VBPR, FREEDOM and BM3 against their formulas, written out densely in float64."""

import numpy as np
import pytest
import torch
from dense import (
    DIM,
    MISSING,
    NUM_ITEMS,
    NUM_USERS,
    World,
    double,
    mean_of_powers,
    normalized,
    partitioned,
    random_interactions,
    training_step,
)
from torch.nn import functional

from egra_dist.config import TrainingSettings
from egra_dist.errors import UserError
from egra_dist.model.bm3 import Bm3
from egra_dist.model.dropout import keep_mask
from egra_dist.model.features import Projection, is_there, with_users
from egra_dist.model.freedom import Freedom
from egra_dist.model.vbpr import Vbpr


def world(name, regularization=0.0, **model):
    model = {"name": name, "dim": DIM, **model}
    return World(TrainingSettings(model=model, regularization=regularization))


def rows(final, triplets):
    return [final[part] for part in (triplets.users, triplets.positives, triplets.negatives)]


def bpr(final, triplets):
    users, positives, negatives = rows(final, triplets)
    return -functional.logsigmoid((users * (positives - negatives)).sum(1)).mean()


def half_squared_norm(parts):
    return 0.5 * sum(part.square().sum() for part in parts) / len(parts[0])


def projected(model, world):
    """``x'_m`` in float64, zeros where it is missing."""
    views = {}
    for name, values in world.features.items():
        views[name] = double(model.projection.linear[name], values)
        if name == MISSING[0]:
            views[name] = views[name] * (torch.arange(NUM_ITEMS) != MISSING[1])[:, None]
    return views


def assert_equal_with_gradients(model, ours, tables, expected):
    """Losses by name, and the gradients of tables and dense parameters."""
    for name, value in expected.items():
        torch.testing.assert_close(ours.values[name].double(), value, rtol=1e-4, atol=1e-6)
    parameters = [*tables, *model.parameters()]
    weights = {"ranking": 1.0, "regularization": model._settings.regularization}
    modality = {"freedom": model._settings.model.freedom, "bm3": model._settings.model.bm3}
    if "modality" in expected:
        weights["modality"] = modality[model._settings.model.name].modality_loss
    total = sum(weights[name] * value for name, value in expected.items())
    wanted = torch.autograd.grad(total, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)


def test_projection_is_linear_and_zero_where_the_modality_is_missing():
    torch.manual_seed(0)
    features = world("vbpr").features
    projection = Projection(features, DIM)
    views = projection()
    for name, values in features.items():
        expected = double(projection.linear[name], values).float()
        there = [item for item in range(NUM_ITEMS) if (name, item) != MISSING]
        torch.testing.assert_close(views[name][there], expected[there])
        assert is_there(views[name]).tolist() == [(name, i) != MISSING for i in range(NUM_ITEMS)]
    assert torch.equal(views[MISSING[0]][MISSING[1]], torch.zeros(DIM))


def test_modalities_stand_side_by_side_below_rows_of_zeros_for_users():
    views = {"a": torch.ones(2, 3), "b": 2 * torch.ones(2, 3)}
    expected = [[0] * 6] * 4 + [[1, 1, 1, 2, 2, 2]] * 2
    assert with_users(views, num_users=4).tolist() == expected


def test_model_that_needs_modalities_says_so():
    with pytest.raises(UserError, match="at least one modality"):
        Projection({}, DIM)


@pytest.mark.parametrize("regularization", [0.0, 0.1])
def test_vbpr(regularization):
    """``<gamma_u, gamma_i> + <theta_u, sum_m x'_m>``."""
    small = world("vbpr", regularization)
    torch.manual_seed(0)
    model = Vbpr(*small.common, small.features)
    users, items = small.tables(user_dim=2 * DIM)
    ours = training_step(model, (users, items))
    seen = sum(projected(model, small).values())
    final = torch.cat([users.double(), torch.cat([items.double(), seen], dim=1)])
    shown = model.represent(model.propagate(users, items)).final
    torch.testing.assert_close(shown.double(), final, rtol=1e-5, atol=1e-6)
    triplets = small.triplets()
    expected = {
        "ranking": bpr(final, triplets),
        "regularization": half_squared_norm(rows(final, triplets)),
    }
    assert_equal_with_gradients(model, ours, (users, items), expected)


WEIGHTS = {"image": 0.1, "text": 0.9}


def build_freedom(small, sampled=None):
    torch.manual_seed(0)
    graphs = {name: partitioned(graph) for name, graph in small.item_graphs().items()}
    drawn = []

    def sample(epoch):
        drawn.append(epoch)
        return partitioned(normalized(sampled))

    model = Freedom(*small.common, partitioned(small.behavior), graphs, small.features, sample)
    return model, drawn


def reference_freedom(small, users, items, interactions, weights):
    embeddings = torch.cat([users, items]).double()
    behavior = mean_of_powers(normalized(interactions), embeddings, 2)
    total = sum(weights.values())
    mixed = sum(weights[name] / total * graph for name, graph in small.item_graphs().items())
    layers = small.settings.model.freedom.item_layers
    latent = torch.as_tensor(np.linalg.matrix_power(mixed, layers)) @ items.double()
    return behavior + torch.cat([torch.zeros(NUM_USERS, DIM), latent])


@pytest.mark.parametrize("item_layers", [1, 2])
@pytest.mark.parametrize("weights", [{}, WEIGHTS, {"image": 0.0}])
def test_freedom(item_layers, weights):
    """Trained on the sample, shown on all edges; the modality loss skips what is missing."""
    options = {"item_layers": item_layers, "modality_weights": weights, "modality_loss": 0.3}
    small = world("freedom", 0.1, freedom=options)
    sampled = random_interactions(5)
    model, drawn = build_freedom(small, sampled)
    model.start_epoch(4)
    assert drawn == [4]
    users, items = tables = small.tables()
    ours = training_step(model, tables)
    weights = {"image": 1.0, "text": 1.0, **weights}
    final = reference_freedom(small, users, items, sampled, weights)
    triplets = small.triplets()
    modality = 0.0
    for name, view in projected(model, small).items():
        for user, positive, negative in zip(
            triplets.users,
            triplets.positives - NUM_USERS,
            triplets.negatives - NUM_USERS,
            strict=True,
        ):
            if MISSING not in ((name, int(positive)), (name, int(negative))):
                margin = final[user] @ (view[positive] - view[negative])
                modality = modality - functional.logsigmoid(margin) / len(triplets)
    expected = {
        "ranking": bpr(final, triplets),
        "regularization": half_squared_norm(rows(final, triplets)),
        "modality": modality,
    }
    assert_equal_with_gradients(model, ours, tables, expected)
    with torch.no_grad():
        shown = model.represent(model.propagate(*tables)).final
    whole = reference_freedom(small, users, items, small.interactions, weights)
    torch.testing.assert_close(shown.double(), whole, rtol=1e-4, atol=1e-5)


def test_freedom_without_edge_dropout_trains_on_all_edges():
    small = world("freedom", freedom={"edge_dropout": 0.0})
    model, drawn = build_freedom(small)
    model.start_epoch(0)
    assert drawn == []
    trained = model.propagate(*small.tables()).behavior
    with torch.no_grad():
        assert torch.equal(model.propagate(*small.tables()).behavior, trained)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"sound": 1.0}, r"no modality 'sound'; there are \['image', 'text'\]"),
        ({"image": 0.0, "text": 0.0}, "one must be above 0"),
    ],
)
def test_freedom_refuses_weights_that_cannot_work(weights, message):
    with pytest.raises(UserError, match=message):
        build_freedom(world("freedom", freedom={"modality_weights": weights}))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_bm3(dropout):
    """Every loss a cosine distance to a dropped-out target that takes no gradient."""
    small = world("bm3", 0.1, bm3={"dropout": dropout, "modality_loss": 0.7})
    torch.manual_seed(0)
    model = Bm3(*small.common, partitioned(small.behavior), small.features)
    users, items = tables = small.tables()
    ours = training_step(model, tables, step=3)
    embeddings = torch.cat([users, items]).double()
    behavior = mean_of_powers(small.behavior, embeddings, 2)
    behavior = behavior + torch.cat([torch.zeros(NUM_USERS, DIM), items.double()])
    triplets = small.triplets()

    def target(values, number):
        kept = keep_mask([len(triplets)], DIM, dropout, 3, number, torch.device("cpu"))
        return values.detach() * kept / (1 - dropout)

    def distances(online, to):
        return 1 - functional.cosine_similarity(online, to, dim=1)

    of_users, of_items, _ = rows(behavior, triplets)
    ranking = distances(double(model.predictor, of_users), target(of_items, 0))
    ranking = ranking + distances(double(model.predictor, of_items), target(of_users, 1))
    modality = 0.0
    for number, (name, view) in enumerate(projected(model, small).items()):
        items_of_batch = triplets.positives - NUM_USERS
        own = view[items_of_batch]
        online = double(model.predictor, own)
        both = distances(online, target(of_items, 0)) + distances(online, target(own, 2 + number))
        there = (items_of_batch != MISSING[1]) if name == MISSING[0] else torch.ones(len(both))
        modality = modality + (both * there).sum() / len(triplets)
    expected = {
        "ranking": ranking.mean(),
        "regularization": half_squared_norm([of_users, of_items]),
        "modality": modality,
    }
    assert_equal_with_gradients(model, ours, tables, expected)
    shown = model.represent(model.propagate(*tables)).final
    torch.testing.assert_close(
        shown.double(), double(model.predictor, behavior), rtol=1e-4, atol=1e-5
    )


def test_cosine_scores_are_inner_products_of_final_vectors_of_length_one():
    settings = TrainingSettings(
        model={"name": "vbpr", "dim": DIM}, ranking={"score": "cosine"}, regularization=0.1
    )
    small = World(settings)
    model = Vbpr(*small.common, small.features)
    tables = small.tables(user_dim=2 * DIM)
    shown = model.represent(model.propagate(*tables))
    torch.testing.assert_close(shown.final.norm(dim=1), torch.ones(NUM_USERS + NUM_ITEMS))
    torch.testing.assert_close(shown.final, functional.normalize(shown.fused, dim=1))
    losses = training_step(model, tables)
    expected = half_squared_norm(rows(shown.fused, small.triplets()))
    torch.testing.assert_close(losses.values["regularization"], expected)
