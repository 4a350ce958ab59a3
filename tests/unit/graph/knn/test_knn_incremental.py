import numpy as np
import pytest

from egra_dist.errors import UserError
from egra_dist.graph.knn import KnnSettings, append_knn, build_knn


def clustered(num_rows, dim=16, num_clusters=60, seed=0):
    generator = np.random.default_rng(seed)
    centers = generator.standard_normal((num_clusters, dim))
    rows = centers[generator.integers(0, num_clusters, num_rows)]
    return (rows + 0.5 * generator.standard_normal((num_rows, dim))).astype(np.float32)


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
def test_an_extended_graph_is_as_good_as_a_new_one(metric):
    vectors = clustered(4000)
    vectors[[5, 3800]] = 0
    settings = KnnSettings(k=6, metric=metric, list_size=150, recall=0.97)
    earlier = build_knn(vectors[:3600], settings)
    extended = append_knn(earlier, vectors, settings)
    exact = build_knn(vectors, settings)
    usable = np.isfinite(exact.scores[:, -1])
    reached = extended.scores >= exact.scores[:, -1:] - 1e-5
    assert reached[usable].mean() >= 0.96
    assert reached[3600:][usable[3600:]].mean() >= 0.95
    changed = (exact.neighbors[:3600] >= 3600) & usable[:3600, None]
    assert changed.any()
    assert (extended.neighbors[:3600] >= 3600).sum() >= 0.95 * changed.sum()
    assert (extended.neighbors[[5, 3800]] == -1).all()
    assert not np.isin(extended.neighbors, [5, 3800]).any()
    assert extended.statistics["num_appended_rows"] == 400
    assert abs(extended.statistics["recall"] - reached[usable].mean()) < 0.02


def test_nothing_appended_changes_nothing():
    vectors = clustered(1500)
    settings = KnnSettings(k=4)
    earlier = build_knn(vectors, settings)
    again = append_knn(earlier, vectors, settings)
    assert np.array_equal(again.neighbors, earlier.neighbors)


def test_a_graph_of_more_rows_or_another_k_is_refused():
    vectors = clustered(600)
    earlier = build_knn(vectors, KnnSettings(k=4))
    with pytest.raises(UserError, match="500 rows, but the graph to append to has 600"):
        append_knn(earlier, vectors[:500], KnnSettings(k=4))
    with pytest.raises(UserError, match="k: 5, but the graph to append to has 4"):
        append_knn(earlier, vectors, KnnSettings(k=5))
