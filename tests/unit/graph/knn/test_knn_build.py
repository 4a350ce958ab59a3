import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from knn_reference import assert_exact

from egra_dist.errors import UserError
from egra_dist.graph.knn import KnnGraph, KnnSettings, Workers, build_knn
from egra_dist.graph.knn.build import default_workers

METRICS = ["cosine", "inner_product", "l2"]


def vectors_of(num_rows, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((num_rows, dim)).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("num_rows", "dim", "k"), [(1, 8, 3), (2, 8, 1), (7, 8, 10), (300, 33, 5)])
def test_small_and_ragged_tables_equal_the_reference(metric, num_rows, dim, k):
    vectors = vectors_of(num_rows, dim)
    graph = build_knn(vectors, KnnSettings(k=k, metric=metric))
    assert graph.neighbors.shape == graph.scores.shape == (num_rows, k)
    assert_exact(graph, vectors, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_a_table_of_several_tiles_equals_the_reference(metric):
    vectors = vectors_of(2500, 16)
    assert_exact(build_knn(vectors, KnnSettings(k=10, metric=metric)), vectors, metric)


def test_rows_without_a_vector_have_no_edges():
    vectors = vectors_of(200, 8)
    vectors[3] = 0
    vectors[7, 2] = np.nan
    vectors[9, 1] = np.inf
    present = np.ones(200, bool)
    present[50:60] = False
    graph = build_knn(vectors, KnnSettings(k=4), present)
    absent = np.array([3, 7, 9, *range(50, 60)])
    assert (graph.neighbors[absent] == -1).all()
    assert not np.isin(graph.neighbors, absent).any()
    assert graph.statistics["num_unusable_rows"] == 13
    assert_exact(graph, vectors, "cosine", present)


def test_an_empty_table_gives_an_empty_graph():
    assert build_knn(np.zeros((0, 8), np.float32), KnnSettings(k=3)).neighbors.shape == (0, 3)
    graph = build_knn(np.zeros((5, 8), np.float32), KnnSettings(k=3))
    assert (graph.neighbors == -1).all()


@pytest.mark.parametrize("metric", METRICS)
def test_duplicates_tie_by_lower_index(metric):
    vectors = np.repeat(vectors_of(60, 8), 5, axis=0)[np.random.default_rng(1).permutation(300)]
    graph = build_knn(vectors, KnnSettings(k=12, metric=metric))
    assert_exact(graph, vectors, metric)
    for row in range(300):
        pairs = list(zip(-graph.scores[row], graph.neighbors[row], strict=True))
        assert pairs == sorted(pairs)
    if metric != "inner_product":
        twins = [np.flatnonzero((vectors == vectors[row]).all(1)) for row in range(300)]
        for row in range(300):
            assert graph.neighbors[row, :4].tolist() == [t for t in twins[row] if t != row]


def test_more_ties_than_slack_are_broken_by_lower_index():
    generator = np.random.default_rng(0)
    vectors = (generator.random((3000, 12)) < 0.3).astype(np.float32) * 2
    vectors = np.unique(vectors, axis=0)
    graph = build_knn(vectors, KnnSettings(k=5, metric="inner_product"))
    scores = (vectors @ vectors.T).astype(np.float64)
    np.fill_diagonal(scores, -np.inf)
    usable = vectors.any(1)
    scores[:, ~usable] = -np.inf
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    assert np.array_equal(graph.neighbors[usable], expected[usable])


def test_half_precision_and_a_graph_that_is_read_back(tmp_path):
    vectors = vectors_of(100, 8).astype(np.float16)
    graph = build_knn(vectors, KnnSettings(k=3))
    assert_exact(graph, vectors, "cosine")
    graph.save(tmp_path / "graph")
    loaded = KnnGraph.load(tmp_path / "graph")
    assert np.array_equal(loaded.neighbors, graph.neighbors)
    assert np.array_equal(loaded.scores, graph.scores)
    assert loaded.statistics == graph.statistics
    assert isinstance(loaded.neighbors, np.memmap)


def test_a_wrong_shape_or_type_names_itself():
    with pytest.raises(UserError, match=r"shape \(5,\)"):
        build_knn(np.zeros(5, np.float32), KnnSettings())
    with pytest.raises(UserError, match="int64"):
        build_knn(np.zeros((5, 2), np.int64), KnnSettings())
    with pytest.raises(UserError, match=r"present: shape \(4,\), expected \(5,\)"):
        build_knn(np.zeros((5, 2), np.float32), KnnSettings(), np.ones(4, bool))


@pytest.mark.parametrize(
    ("cuda", "num_gpus", "device"), [("13.0", 2, "cuda"), ("13.0", 0, "cpu"), (None, 2, "cpu")]
)
def test_gpus_of_a_cluster_do_the_work_if_torch_can_use_them(monkeypatch, cuda, num_gpus, device):
    ray = SimpleNamespace(
        is_initialized=lambda: True, cluster_resources=lambda: {"CPU": 8.0, "GPU": float(num_gpus)}
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert default_workers(10**6, 64) == Workers(ray=True, device=device)
    assert not default_workers(100, 64).ray, "too little to do"
