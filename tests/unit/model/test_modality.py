"""The branch against METHOD's stage 1, written out densely in float64."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from egra_dist.config import TrainingSettings
from egra_dist.graph.partition import NodePartition, RowPartition
from egra_dist.model.batch import Propagated
from egra_dist.model.egra import Egra
from egra_dist.model.features import PerModality
from egra_dist.model.modality import ModalityBranch, WholeModalityGraph
from egra_dist.model.propagation import PartitionedMatrix
from egra_dist.model.ranking import RankingLoss
from tests.matrices import csr_of

NUM_USERS, NUM_ITEMS, DIM = 4, 6, 8


def partitioned(dense):
    return PartitionedMatrix(
        csr_of(dense), RowPartition.even(dense.shape[1], 1), torch.device("cpu")
    )


def build(num_modalities, missing=()):
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    names = [f"modality{m}" for m in range(num_modalities)]
    features = {name: torch.randn(NUM_ITEMS, 5 + m) for m, name in enumerate(names)}
    present = {name: torch.ones(NUM_ITEMS, dtype=torch.bool) for name in names}
    graphs = {name: random.random((NUM_ITEMS, NUM_ITEMS)) for name in names}
    user_rows = random.random((NUM_USERS, NUM_ITEMS))
    for name, item in missing:
        present[name][item] = False
        features[name][item] = 0
        graphs[name][item] = graphs[name][:, item] = 0
    graph = WholeModalityGraph(
        features,
        present,
        {name: partitioned(graph) for name, graph in graphs.items()},
        partitioned(user_rows),
    )
    branch = ModalityBranch({name: x.shape[1] for name, x in features.items()}, DIM, graph)
    return branch, features, graphs, user_rows


def reference_side(branch, features, graphs, user_rows, items, behavior):
    branch = branch.double()
    views = []
    for name, x in features.items():
        projected = branch.project[name](x.double())
        purified = items.double() * torch.sigmoid(branch.purify[name](projected))
        own = torch.as_tensor(graphs[name]) @ purified
        views.append(torch.cat([torch.as_tensor(user_rows) @ own, own]))
    attention = torch.softmax(torch.cat([branch.query(view) for view in views], dim=1), dim=1)
    common = sum(attention[:, m : m + 1] * view for m, view in enumerate(views))
    side = common.clone()
    for name, view in zip(features, views, strict=True):
        side += torch.sigmoid(branch.gate[name](behavior.double())) * (view - common)
    return side / (len(views) + 1)


@pytest.mark.parametrize("num_modalities", [1, 2, 3])
def test_side_is_that_of_the_method(num_modalities):
    branch, *data = build(num_modalities)
    items, behavior = torch.randn(NUM_ITEMS, DIM), torch.randn(NUM_USERS + NUM_ITEMS, DIM)
    side = branch.fuse(branch.propagate(items), behavior)
    expected = reference_side(branch, *data, items, behavior)
    torch.testing.assert_close(side, expected.float(), rtol=1e-5, atol=1e-6)


def test_rounding_does_not_depend_on_how_many_rows_a_rank_has():
    torch.manual_seed(0)
    branch = ModalityBranch({"image": 30}, DIM, None, torch.bfloat16)
    items, features = torch.randn(200, DIM), torch.randn(200, 30)
    present = torch.ones(200, dtype=torch.bool)
    whole = branch.purified("image", items, features, present)
    for size in (1, 7):
        parts = zip(*(rows.split(size) for rows in (items, features, present)), strict=True)
        by_parts = torch.cat([branch.purified("image", *part) for part in parts])
        torch.testing.assert_close(by_parts, whole, rtol=1e-6, atol=1e-6)


def test_missing_modality_gets_no_attention():
    branch, *_ = build(2, missing=[("modality1", 3)])
    propagated = branch.propagate(torch.randn(NUM_ITEMS, DIM))
    behavior = torch.randn(NUM_USERS + NUM_ITEMS, DIM)
    row = NUM_USERS + 3
    view = propagated[row, :DIM]
    expected = (view + 0 * behavior[row]) / 3
    torch.testing.assert_close(branch.fuse(propagated, behavior)[row], expected)


@pytest.mark.parametrize("fusion", ["sum", "normalized"])
@pytest.mark.parametrize(("score", "norm_power"), [("inner", 1.0), ("cosine", 0.6)])
def test_vectors_are_what_behavior_and_each_modality_add(fusion, score, norm_power):
    branch, *_ = build(2, missing=[("modality1", 3)])
    ranking = {"score": score, "norm_power": norm_power}
    settings = TrainingSettings(model={"fusion": fusion, "side_weight": 0.7}, ranking=ranking)
    nodes = NodePartition(RowPartition.even(NUM_USERS, 1), RowPartition.even(NUM_ITEMS, 1))
    ranking_loss = RankingLoss(settings.ranking, torch.ones(NUM_ITEMS, dtype=torch.long))
    model = Egra(settings, nodes, ranking_loss, None, branch)
    propagated = branch.propagate(torch.randn(NUM_ITEMS, DIM))
    rows = Propagated(torch.randn(NUM_USERS + NUM_ITEMS, DIM), propagated)
    made = model.represent(rows)
    shares = model.modality_shares(rows, made)
    assert list(shares) == ["modality0", "modality1"]
    assert not shares["modality1"][NUM_USERS + 3].any()

    def added(part):
        """A part of the sum, before lengths are changed."""
        return part / made.side.norm(dim=1)[:, None] if fusion == "normalized" else part

    behavior = functional.normalize(rows.behavior) if fusion == "normalized" else rows.behavior
    fused = behavior + 0.7 * added(made.side)
    power = norm_power if score == "cosine" else 0
    scale = fused.norm(dim=1, keepdim=True) ** -power
    torch.testing.assert_close(made.final, scale * fused)
    torch.testing.assert_close(sum(shares.values()), scale * 0.7 * added(made.side))
    own = branch.shares(propagated, rows.behavior)
    torch.testing.assert_close(shares["modality0"], scale * 0.7 * added(own[:, 0]))


def test_share_of_a_modality_is_what_its_vector_adds():
    """With gates and attention held, ``Side`` is linear in the views of the modalities."""
    branch, *_ = build(2)
    propagated = branch.propagate(torch.randn(NUM_ITEMS, DIM))
    behavior = torch.randn(NUM_USERS + NUM_ITEMS, DIM)
    views = propagated.view(-1, 2, DIM)
    attention = torch.softmax(branch.query(views).squeeze(2), dim=1)[:, :, None]
    gates = [torch.sigmoid(branch.gate[name](behavior)) for name in branch.names]
    for number, share in enumerate(branch.shares(propagated, behavior).unbind(1)):
        alone = torch.zeros_like(views)
        alone[:, number] = views[:, number]
        common = (attention * alone).sum(1)
        side = common + sum(gates[m] * (alone[:, m] - common) for m in range(2))
        torch.testing.assert_close(share, side / 3)


def test_item_without_any_modality_has_no_side():
    branch, *_ = build(2, missing=[("modality0", 2), ("modality1", 2)])
    propagated = branch.propagate(torch.randn(NUM_ITEMS, DIM))
    behavior = torch.randn(NUM_USERS + NUM_ITEMS, DIM)
    side = branch.fuse(propagated, behavior)
    assert torch.equal(side[NUM_USERS + 2], torch.zeros(DIM))
    assert torch.isfinite(side).all()


def test_gradient_of_the_fusion_is_the_numerical_one():
    branch, *_ = build(2, missing=[("modality1", 3)])
    branch.double()
    views = branch.propagate(torch.randn(NUM_ITEMS, DIM, dtype=torch.float64)).detach()
    behavior = torch.randn(NUM_USERS + NUM_ITEMS, DIM, dtype=torch.float64)
    parameters = [
        branch.query[0].weight,
        branch.query[0].bias,
        branch.query[2].weight,
        *(layer.weight for layer in branch.gate.values()),
        *(layer.bias for layer in branch.gate.values()),
    ]
    inputs = [tensor.detach().requires_grad_() for tensor in (views[2:8], behavior[2:8])]
    present = views[2:8] != 0  # A modality that is missing stays missing.

    def fuse(views, behavior, *parameters):
        return branch.fuse(views * present, behavior)

    assert torch.autograd.gradcheck(fuse, (*inputs, *parameters))


def test_a_modality_may_be_named_as_what_a_dictionary_of_torch_has():
    names = [name for name in dir(torch.nn.ModuleDict) if not name.startswith("__")]
    assert {"type", "train", "keys"} <= set(names)
    modules = {name: torch.nn.Linear(2, 1) for name in [*names, "image"]}
    found = PerModality(modules)
    assert all(found[name] is module for name, module in modules.items())
    assert "image.weight" in found.state_dict()
    assert len(found.state_dict()) == 2 * len(modules)
