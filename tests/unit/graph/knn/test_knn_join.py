import numpy as np
import pytest
import torch

from egra_dist.graph.knn.join import Side, join


def sides(num_queries, num_base, dim=16, seed=0, quantile=0.95):
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(num_queries, dim, generator=generator)
    base = torch.randn(num_base, dim, generator=generator)
    scores = (queries.double() @ base.double().T).float()
    query_bounds = scores.quantile(quantile, dim=1)
    base_bounds = scores.quantile(quantile, dim=0)
    return Side(queries, query_bounds), Side(base, base_bounds), scores


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize(("num_queries", "num_base"), [(1, 1), (5, 200), (600, 70), (520, 1111)])
def test_every_pair_that_beats_a_bound_is_found_once(rounded, num_queries, num_base):
    queries, base, scores = sides(num_queries, num_base)
    rows, columns = join(queries, base, k=3, rounded=rounded)
    found = np.zeros(scores.shape, int)
    np.add.at(found, (rows, columns), 1)
    assert found.max() == 1
    needed = torch.minimum(queries.bounds[:, None], base.bounds[None])
    best_of_query = scores >= scores.topk(min(3, num_base), dim=1).values[:, -1:]
    matters = (scores > queries.bounds[:, None] + 1e-4) & best_of_query
    matters |= scores > base.bounds + 1e-4
    assert found[matters.numpy()].all()
    if not rounded:
        assert not found[(scores < needed - 1e-3).numpy()].any()


def test_without_bounds_the_best_of_each_row_remain():
    queries, base, scores = sides(600, 900)
    unknown = [Side(side.rows, torch.full((len(side),), -torch.inf)) for side in (queries, base)]
    rows, columns = join(*unknown, k=3)
    assert len(rows) < scores.numel() / 4
    found = np.zeros(scores.shape, bool)
    found[rows, columns] = True
    for values, hits in ((scores, found), (scores.T, found.T)):
        best = values.topk(3, dim=1).indices.numpy()
        assert np.take_along_axis(hits, best, axis=1).all()


def test_an_empty_side_has_no_pairs():
    nothing = Side(torch.empty(0, 4), torch.empty(0))
    something = Side(torch.ones(5, 4), torch.zeros(5))
    assert len(join(nothing, something, k=3)[0]) == 0
    assert len(join(something, nothing, k=3)[0]) == 0
