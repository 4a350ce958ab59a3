"""Ranks of positives against a float64 sort of the whole score matrix."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from egra_dist.evaluate.entries import EntriesByItem
from egra_dist.evaluate.inner_product import exact_dot
from egra_dist.evaluate.ranks import rank_by_scores, rank_by_vectors
from egra_dist.evaluate.tiles import local_tiles


def entries(rows):
    """Sets of items by user row."""
    pairs = [(row, item) for row, items in enumerate(rows) for item in sorted(items)]
    return EntriesByItem(*torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T.contiguous())


def ranks_by_sorting(scores, positives, seen, k):
    """Ranks by definition: the place in a stable float64 sort of all unseen items, at most k."""
    ranks = []
    for row, items in enumerate(positives):
        order = np.argsort(-scores[row].numpy(), kind="stable")
        order = [item for item in order if item not in seen[row]]
        ranks += [order.index(i) if i in order else k for i in sorted(items)]
    return np.minimum(ranks, k)


def random_case(num_users, num_items, dim, seed, coarse=False):
    """Vectors, positives and seen items; some positives are seen, some users have none."""
    random = torch.Generator().manual_seed(seed)
    users = torch.randn(num_users, dim, generator=random)
    items = torch.randn(num_items, dim, generator=random)
    if coarse:
        users, items = users.round(), items.round()

    def subsets(most):
        sizes = torch.randint(0, most + 1, (num_users,), generator=random).tolist()
        return [set(torch.randint(num_items, (n,), generator=random).tolist()) for n in sizes]

    return users, items, subsets(min(num_items, 12)), subsets(num_items)


def ranks_of(users, tiles, positives, seen, k, batch=1024):
    ranks = rank_by_vectors(users, tiles, entries(positives), entries(seen), k, batch)
    return ranks.clamp(max=k)


@settings(deadline=None, max_examples=60)
@given(
    num_users=st.integers(0, 9),
    num_items=st.integers(1, 120),
    dim=st.integers(1, 9),
    k=st.integers(1, 30),
    tile=st.integers(1, 130),
    batch=st.integers(1, 10),
    coarse=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_ranks_equal_those_of_a_sort(num_users, num_items, dim, k, tile, batch, coarse, seed):
    users, items, positives, seen = random_case(num_users, num_items, dim, seed, coarse)
    ranks = ranks_of(users, partial(local_tiles, items, tile), positives, seen, k, batch)
    scores = exact_dot(users[:, None], items)
    np.testing.assert_array_equal(ranks, ranks_by_sorting(scores, positives, seen, k))


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("coarse", [False, True])
def test_a_coarse_matrix_product_does_not_show(precision, coarse):
    users, items, positives, seen = random_case(30, 5000, 32, 3, coarse)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        ranks = ranks_of(users, partial(local_tiles, items, 4000), positives, seen, 500)
    finally:
        torch.set_float32_matmul_precision(before)
    scores = exact_dot(users[:, None], items)
    np.testing.assert_array_equal(ranks, ranks_by_sorting(scores, positives, seen, 500))


def test_nearly_equal_scores_are_told_apart_in_float64():
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    items = torch.stack([torch.full((400,), 2.0**20), order * 2.0**-10], 1)
    ranks = ranks_of(torch.ones(1, 2), partial(local_tiles, items, 150), [range(400)], [[]], 400)
    assert ranks.tolist() == (399 - order).tolist()


def test_ties_go_to_the_lower_item_across_tiles():
    tiles = partial(local_tiles, torch.ones(500, 4), 64)
    ranks = ranks_of(torch.zeros(2, 4), tiles, [[0, 3, 200, 499], [2]], [[], [1]], 300)
    assert ranks.tolist() == [0, 3, 200, 300, 1]


def test_a_positive_that_was_seen_is_not_found():
    tiles = partial(local_tiles, torch.ones(5, 2), 2)
    assert ranks_of(torch.ones(1, 2), tiles, [[0, 1]], [[0]], 3).tolist() == [3, 0]


def test_vectors_that_are_not_finite_are_refused():
    items = torch.ones(5, 2)
    items[3, 1] = torch.nan
    tiles = partial(local_tiles, items, 2)
    with pytest.raises(FloatingPointError, match="item 3"):
        ranks_of(torch.ones(1, 2), tiles, [[1]], [[]], 3)
    with pytest.raises(FloatingPointError, match="user"):
        ranks_of(torch.full((1, 2), torch.inf), tiles, [[1]], [[]], 3)


def test_memory_mapped_half_precision_items(tmp_path):
    users, items, positives, seen = random_case(6, 200, 8, seed=5)
    np.save(tmp_path / "items.npy", items.half().numpy())
    mapped = np.load(tmp_path / "items.npy", mmap_mode="r")
    ranks = ranks_of(users, partial(local_tiles, mapped, 64), positives, seen, 10)
    scores = exact_dot(users[:, None], items.half())
    np.testing.assert_array_equal(ranks, ranks_by_sorting(scores, positives, seen, 10))


@pytest.mark.parametrize("batch", [7, 30])
def test_scores_of_any_model_are_ranked_as_products_are(batch):
    users, items, positives, seen = random_case(30, 200, 8, seed=6, coarse=True)
    scores = exact_dot(users[:, None], items).float()
    ranks = rank_by_scores(
        lambda block: scores[block].clone(), 30, entries(positives), entries(seen), 15, batch
    )
    expected = ranks_by_sorting(scores, positives, seen, 15)
    np.testing.assert_array_equal(ranks.clamp(max=15), expected)
