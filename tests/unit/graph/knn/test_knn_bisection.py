import numpy as np
import torch

from egra_dist.graph.knn.bisection import bisection_order


def test_near_centroids_stand_near_each_other():
    generator = np.random.default_rng(0)
    group = generator.permutation(np.repeat(np.arange(8), 12))
    centers = 10 * generator.standard_normal((8, 16))
    centroids = torch.from_numpy(centers[group] + generator.standard_normal((96, 16))).float()
    order = bisection_order(centroids, torch.ones(96)).numpy()
    assert sorted(order) == list(range(96))
    assert (np.diff(group[order]) != 0).sum() <= 20  # 84 when shuffled, 7 at least


def test_a_cut_halves_the_weight_not_the_number():
    weights = torch.ones(10)
    weights[4] = 9
    order = bisection_order(torch.arange(10.0)[:, None], weights).tolist()
    assert set(order[:4]) == {0, 1, 2, 3} or set(order[:5]) == {5, 6, 7, 8, 9}


def test_equal_centroids_and_a_single_one():
    assert bisection_order(torch.ones(5, 3), torch.ones(5)).sort().values.tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert bisection_order(torch.ones(1, 3), torch.ones(1)).tolist() == [0]
