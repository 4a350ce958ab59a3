"""What runs on a GPU: there where there is one, else by the same code on the processor."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from knn_reference import assert_exact, reference_scores

from egra_dist.graph.knn import KnnGraph, KnnSettings, Workers, build_knn, cost
from egra_dist.graph.knn.accelerator import method, search
from egra_dist.graph.knn.accelerator.groups import (
    GROUP,
    TILE,
    group_maxima,
    group_products,
    largest,
    places_of_groups,
)
from egra_dist.graph.knn.accelerator.method import fits, join_on_device
from egra_dist.graph.knn.accelerator.table import open_table
from egra_dist.graph.knn.meter import Meter
from egra_dist.graph.knn.prepare import prepare
from egra_dist.graph.knn.selfjoin import SelfJoin

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
METRICS = ["cosine", "inner_product", "l2"]


def vectors_of(num_rows, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((num_rows, dim)).astype(np.float32)


def clusters(num_rows, dim, spread, seed=0):
    random = np.random.default_rng(seed)
    centers = random.standard_normal((num_rows // 50 + 1, dim))
    rows = centers[random.integers(len(centers), size=num_rows)]
    return (rows + spread * random.standard_normal(rows.shape)).astype(np.float32)


def built(vectors, settings, folder):
    rows = prepare(vectors, settings.metric, None, folder).rows
    join = SelfJoin(rows, settings, folder, Workers(1, device=DEVICE), Meter(len(rows), None))
    found = join_on_device(join, cost.choose(*rows.shape, settings, "cuda"))
    return KnnGraph(found.ids, found.scores, found.statistics)


def test_maxima_are_those_of_the_rows_of_each_group():
    queries, base = torch.randn(37, 12), torch.randn(3 * TILE, 12)
    maxima = group_maxima(queries.to(DEVICE), base.to(DEVICE)).cpu()
    places = places_of_groups(torch.arange(3 * TILE // GROUP))
    assert sorted(places.flatten().tolist()) == list(range(3 * TILE))
    torch.testing.assert_close(maxima, (queries @ base.T)[:, places].amax(2))


def test_products_are_those_of_the_rows_of_each_group():
    queries, base = torch.randn(37, 70), torch.randn(3 * TILE, 70)
    groups = torch.randint(3 * TILE // GROUP, (37, 5))
    products = group_products(queries.to(DEVICE), base.to(DEVICE), groups.to(DEVICE)).cpu()
    expected = (queries @ base.T).gather(1, places_of_groups(groups).flatten(1))
    torch.testing.assert_close(products, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("width", [8, 64, 66, 200])
def test_the_fused_kernel_agrees_with_the_product(width):
    queries = torch.randn(150, width, device=DEVICE).bfloat16()
    base = torch.randn(4 * TILE, width, device=DEVICE).bfloat16()
    expected = group_maxima(queries.double(), base.double()).float()
    torch.testing.assert_close(group_maxima(queries, base), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("width", [10, 1000, 16 * 500, 16 * 16 * 300])
def test_the_largest_are_found_in_wide_rows(width):
    values = torch.randn(5, width, device=DEVICE)
    found, columns = largest(values, 7)
    assert torch.equal(found, values.topk(7).values)
    assert torch.equal(values.gather(1, columns), found)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("num_rows", "dim", "k"), [(1, 8, 3), (7, 8, 10), (300, 33, 5), (3000, 16, 12)]
)
def test_all_pairs_equal_the_reference(metric, num_rows, dim, k, tmp_path):
    vectors = 3 * vectors_of(num_rows, dim)
    graph = built(vectors, KnnSettings(k=k, metric=metric, method="exact"), tmp_path)
    assert_exact(graph, vectors, metric)


def test_what_rounding_hides_is_repeated_in_float32(tmp_path, monkeypatch):
    calls = []
    real = search._search_block

    def noted(table, queries, k, num_groups, is_rounded):
        found = real(table, queries, k, num_groups, is_rounded)
        calls.append((is_rounded, len(queries), int((~found[1]).sum())))
        return found

    monkeypatch.setattr(search, "_search_block", noted)
    # Nearer to each other than bfloat16 can tell; some so many that no few groups hold them.
    crowd = vectors_of(1, 24) + 3e-3 * vectors_of(2500, 24, seed=1)
    vectors = np.concatenate([clusters(1000, 24, 1e-2), crowd])
    graph = built(vectors, KnnSettings(k=10, method="exact"), tmp_path)
    assert_exact(graph, vectors, "cosine", tolerance=1e-6)
    rounded, all_queries, unproved = zip(*calls, strict=True)
    assert rounded[:3] == (True, True, False), "twice with rounding, then without"
    assert all_queries[1] == unproved[0] > unproved[1] == all_queries[2], "only what is not proved"
    assert unproved[-1] == 0, "until all is"


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_few_lists_have_the_recall_wanted(metric, tmp_path, monkeypatch):
    monkeypatch.setattr(method, "_ROWS_PER_TASK", 2048)
    vectors = clusters(9000, 16, spread=0.5)
    settings = KnnSettings(k=10, metric=metric, method="routed", recall=0.95, list_size=300)
    graph = built(vectors, settings, tmp_path)
    truth = np.sort(reference_scores(vectors, metric), axis=1)[:, -10:]
    recall = (graph.scores >= truth[:, :1] - 1e-4 * np.abs(truth[:, :1])).mean()
    assert recall >= 0.94
    assert abs(recall - graph.statistics["recall"]) <= 0.02
    assert graph.statistics["lists_per_row"] < graph.statistics["num_lists"] / 2
    assert graph.statistics["list_skew"] >= 1
    rows = np.arange(len(vectors))[:, None]
    assert not (graph.neighbors == rows).any()
    assert all(len(set(row)) == 10 for row in graph.neighbors.tolist())


def test_the_same_seed_gives_the_same_graph_and_a_call_goes_on_where_one_stopped(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(method, "_ROWS_PER_TASK", 2048)
    vectors = clusters(9000, 16, spread=0.5)
    settings = KnnSettings(k=10, method="routed", list_size=300)
    (tmp_path / "one").mkdir()
    whole = built(vectors, settings, tmp_path / "one")
    assert len(list((tmp_path / "one" / "routed").iterdir())) > 2
    (tmp_path / "one" / "routed" / "000001.npy").unlink()
    (tmp_path / "other").mkdir()
    for again in (
        built(vectors, settings, tmp_path / "one"),
        built(vectors, settings, tmp_path / "other"),
    ):
        assert np.array_equal(again.neighbors, whole.neighbors)
        assert np.array_equal(again.scores, whole.scores)


def test_what_few_lists_cannot_do_for_less_is_compared_with_all(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "device_routed_seconds", lambda *_: float("inf"))
    vectors = clusters(3000, 16, spread=0.5)
    graph = built(vectors, KnnSettings(k=5, exact_seconds=0, list_size=300), tmp_path)
    assert graph.statistics["method"] == "exact"
    assert "lists per row have recall" in graph.statistics["reason"]
    assert_exact(graph, vectors, "cosine")
    assert open_table.cache_info().currsize == 0, "the device's memory is free again"


def test_inner_products_are_compared_with_all(tmp_path):
    vectors = vectors_of(3000, 8)
    graph = built(vectors, KnnSettings(k=5, metric="inner_product", method="routed"), tmp_path)
    assert graph.statistics["method"] == "exact"
    assert_exact(graph, vectors, "inner_product")


def test_what_does_not_fit_is_left_to_the_processors(monkeypatch, caplog):
    join = SimpleNamespace(rows=np.broadcast_to(np.float32(0), (10**8, 64)), workers=Workers())
    assert not fits(join)
    assert fits(
        SimpleNamespace(rows=np.broadcast_to(np.float32(0), (10**6, 64)), workers=Workers())
    )
    monkeypatch.setattr(method, "fits", lambda join: False)
    vectors = clusters(400, 8, spread=0.5)
    settings = KnnSettings(k=5, method="routed", recall=0.9)
    with caplog.at_level("INFO"):
        graph = build_knn(vectors, settings, workers=Workers(1, device="cuda"))
    assert "do not fit into a GPU" in caplog.text
    assert graph.statistics["num_edges"] == 400 * 5
