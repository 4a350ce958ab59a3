"""METHOD's identities that need whole models: the same numbers, bit for bit, on one rank."""

from dataclasses import replace

import numpy as np
import pytest
from ranks import run_on_ranks
from test_training_ranks import make_task, series, train_on_rank

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.config import ItemGraphSettings
from egra_dist.graph.item import write_merged
from egra_dist.graph.knn import KnnSettings, build_knn


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    settings = SynthSettings(num_items=200, num_users=300, num_interactions=3000)
    return synthesize(settings, tmp_path_factory.mktemp("identities") / "catalog")


def task_of(name, catalog, folder, *overrides):
    """A short training in a folder of its own."""
    task = make_task(
        catalog,
        folder,
        f"train.model.name={name}",
        "train.max_steps=12",
        "train.batch_size=512",
        *overrides,
    )
    return replace(task, folder=folder / f"{name}-{len(overrides)}")


def on_plain_graph(task, modalities=True):
    graphs = replace(task.graphs, behavior=task.graphs.plain)
    return replace(task, graphs=graphs if modalities else replace(graphs, features={}))


def train_all(tasks):
    return [train_on_rank(task) for task in tasks]


def assert_same(tasks, names):
    (first, first_vectors), *others = run_on_ranks(train_all, 1, tasks)[0]
    for points, vectors in others:
        for name in names:
            assert len(series(first, name)) > 0
            assert np.array_equal(series(first, name), series(points, name))
        assert np.array_equal(first_vectors, vectors)


FIXED = ("train.alignment.focus=uniform", "train.alignment.ramp=constant")
LOSSES = ("train/loss_total", "train/loss_ranking", "valid/recall_at_20")
ALIGNMENTS = ("train/loss_user_alignment", "train/loss_item_alignment")


def test_egra_without_its_two_parts_is_mgcn(catalog, tmp_path):
    egra = on_plain_graph(task_of("egra", catalog, tmp_path, *FIXED))
    mgcn = on_plain_graph(task_of("mgcn", catalog, tmp_path))
    assert_same([egra, mgcn], LOSSES + ALIGNMENTS)


def test_gume_whose_item_edges_weigh_nothing_is_mgcn(catalog, tmp_path):
    gume = task_of("gume", catalog, tmp_path)
    features = catalog.features(catalog.modalities[0])
    knn = build_knn(features.values, KnnSettings(k=5), features.present)
    settings = ItemGraphSettings(source="raw", beta=0.0)
    weightless = tmp_path / "weightless"
    knn.save(weightless / "knn")
    write_merged(gume.graphs.plain.parent, weightless / "knn", settings, weightless)
    gume = replace(gume, graphs=replace(gume.graphs, behavior=weightless / "behavior"))
    mgcn = on_plain_graph(task_of("mgcn", catalog, tmp_path))
    assert_same([gume, mgcn], LOSSES + ALIGNMENTS)


def test_gume_is_egra_with_uniform_and_constant_alignment(catalog, tmp_path):
    gume = task_of("gume", catalog, tmp_path)
    egra = task_of("egra", catalog, tmp_path, *FIXED)
    assert_same([gume, egra], LOSSES + ALIGNMENTS)


@pytest.mark.parametrize("loss", ["bpr", "softmax"])
def test_egra_without_modalities_and_item_graph_is_lightgcn(catalog, tmp_path, loss):
    ranking = f"train.ranking.loss={loss}"
    tasks = [
        on_plain_graph(task_of(name, catalog, tmp_path, ranking), modalities=False)
        for name in ("egra", "lightgcn")
    ]
    assert_same(tasks, LOSSES)
