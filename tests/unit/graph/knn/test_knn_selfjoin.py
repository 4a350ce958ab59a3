"""The distributed methods, in one process."""

import numpy as np
import pytest

from egra_dist.graph.knn import KnnSettings, build_knn, cost
from egra_dist.graph.knn.build import _digest
from egra_dist.graph.knn.tasks import Workers

METRICS = ["cosine", "inner_product", "l2"]


@pytest.fixture(autouse=True)
def _no_table_is_small(monkeypatch):
    monkeypatch.setattr(cost, "DIRECT_ROWS", 1000)


def clustered(num_rows, dim=16, num_clusters=60, seed=0, norm_sigma=0.0):
    generator = np.random.default_rng(seed)
    centers = generator.standard_normal((num_clusters, dim))
    rows = centers[generator.integers(0, num_clusters, num_rows)]
    rows = rows + 0.5 * generator.standard_normal((num_rows, dim))
    rows *= np.exp(norm_sigma * generator.standard_normal((num_rows, 1)))
    return rows.astype(np.float32)


def share_found(graph, exact):
    reached = graph.scores >= exact.scores[:, -1:] - 1e-6
    return reached.mean()


@pytest.mark.parametrize("metric", METRICS)
def test_exact_by_tiles_equals_exact_at_once(metric, monkeypatch):
    vectors = clustered(5000)
    vectors[100:130] = vectors[7]
    vectors[40] = np.nan
    tiled = build_knn(vectors, KnnSettings(k=8, metric=metric))
    monkeypatch.setattr(cost, "DIRECT_ROWS", 10_000)
    direct = build_knn(vectors, KnnSettings(k=8, metric=metric))
    assert np.array_equal(tiled.neighbors, direct.neighbors)
    assert np.array_equal(tiled.scores, direct.scores)


@pytest.mark.parametrize("metric", METRICS)
def test_routed_reaches_the_recall_and_says_so(metric):
    vectors = clustered(6000, norm_sigma=0.3 if metric == "inner_product" else 0.0)
    options = {"k": 8, "metric": metric}
    routed = build_knn(
        vectors, KnnSettings(**options, method="routed", recall=0.95, list_size=150, audit_rows=800)
    )
    exact = build_knn(vectors, KnnSettings(**options, method="exact"))
    found = share_found(routed, exact)
    statistics = routed.statistics
    assert statistics["method"] == "routed"
    assert 1 < statistics["lists_per_row"] < 20
    assert found >= 0.94
    assert abs(found - statistics["recall"]) <= 2 * statistics["recall_half_width"] + 1e-3


def test_more_recall_takes_more_visits():
    vectors = clustered(6000)
    options = {"method": "routed", "list_size": 100, "k": 5}
    low = build_knn(vectors, KnnSettings(**options, recall=0.7)).statistics
    high = build_knn(vectors, KnnSettings(**options, recall=0.99)).statistics
    assert low["lists_per_row"] < high["lists_per_row"]
    assert low["recall"] < high["recall"]


def test_auto_takes_all_pairs_when_routing_would_cost_more():
    vectors = np.random.default_rng(0).standard_normal((6000, 64)).astype(np.float32)
    settings = KnnSettings(recall=0.999, exact_seconds=0.0, list_size=500)
    statistics = build_knn(vectors, settings).statistics
    assert statistics["method"] == "exact"
    assert "would cost more" in statistics["reason"]


def test_the_graph_does_not_depend_on_the_workers():
    vectors = clustered(5000)
    settings = KnnSettings(k=6, method="routed", list_size=150)
    one, three = (build_knn(vectors, settings, workers=Workers(n)) for n in (1, 3))
    assert np.array_equal(one.neighbors, three.neighbors)
    assert np.array_equal(one.scores, three.scores)


def test_a_build_that_died_goes_on_and_ends_in_the_same_graph(tmp_path, monkeypatch):
    from egra_dist.graph.knn import routed, selfjoin

    monkeypatch.setattr(selfjoin, "PAIRS_PER_TASK", 1e4)
    vectors = clustered(5000)
    settings = KnnSettings(k=6, method="routed", list_size=150)
    undisturbed = build_knn(vectors, settings)
    runs = {"before": 0, "after": 0}
    run = routed.VisitTask.run

    def dies_at_the_fifth(task, folder):
        runs["before"] += 1
        if runs["before"] == 5:
            raise RuntimeError("the power went out")
        return run(task, folder)

    monkeypatch.setattr(routed.VisitTask, "run", dies_at_the_fifth)
    with pytest.raises(RuntimeError, match="power"):
        build_knn(vectors, settings, workdir=tmp_path)

    def counts(task, folder):
        runs["after"] += 1
        return run(task, folder)

    monkeypatch.setattr(routed.VisitTask, "run", counts)
    monkeypatch.setattr(routed.WithinTask, "run", lambda *_: pytest.fail("was done before"))
    resumed = build_knn(vectors, settings, workdir=tmp_path)
    assert runs["after"] > 5
    assert not list(tmp_path.iterdir())
    assert np.array_equal(resumed.neighbors, undisturbed.neighbors)
    assert np.array_equal(resumed.scores, undisturbed.scores)


def test_other_vectors_do_not_take_up_the_work_of_an_earlier_build(tmp_path):
    vectors, settings = clustered(3000), KnnSettings()
    assert _digest(vectors, settings, None) == _digest(vectors.copy(), settings, None)
    other = vectors.copy()
    other[17, 3] += 1
    present = np.ones(3000, bool)
    digests = {
        _digest(vectors, settings, None),
        _digest(other, settings, None),
        _digest(vectors, KnnSettings(k=11), None),
        _digest(vectors, settings, present),
    }
    assert len(digests) == 4


def test_progress_never_falls_and_reaches_the_end():
    seen = []

    class Progress:
        def update(self, done, **_):
            seen.append(done)

    build_knn(clustered(4000), KnnSettings(method="routed"), progress=Progress())
    assert seen == sorted(seen)
    assert seen[-1] == 4000


def test_wide_vectors_are_joined_on_a_projection_and_scored_in_full_width():
    generator = np.random.default_rng(0)
    narrow = clustered(2500, dim=40)
    vectors = (narrow @ generator.standard_normal((40, 4096))).astype(np.float32)
    vectors += 0.1 * generator.standard_normal(vectors.shape).astype(np.float32)
    options = {"k": 6, "list_size": 150}
    routed = build_knn(vectors, KnnSettings(**options, method="routed", recall=0.95))
    exact = build_knn(vectors, KnnSettings(**options, method="exact"))
    assert routed.statistics["projected_dim"] == 192
    assert routed.statistics["recall"] >= 0.95
    assert share_found(routed, exact) >= 0.94
    same = routed.neighbors == exact.neighbors
    assert np.array_equal(routed.scores[same], exact.scores[same])


def test_many_neighbors():
    vectors = clustered(2500)
    graph = build_knn(vectors, KnnSettings(k=200, method="routed", list_size=500))
    exact = build_knn(vectors, KnnSettings(k=200, method="exact"))
    assert share_found(graph, exact) >= 0.97
