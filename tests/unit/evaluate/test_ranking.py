"""Top-k lists against a float64 sort of the whole score matrix."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from egra_dist.evaluate.ranking import exact_dot, rank_scores, rank_users
from egra_dist.evaluate.seen import SeenItems
from egra_dist.evaluate.tiles import local_tiles
from egra_dist.graph.csr import Csr


def csr(rows, num_columns):
    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.array([i for row in rows for i in sorted(row)], dtype=np.int32)
    return Csr(indptr, indices, None, num_columns)


def seen_of(rows, num_items):
    return SeenItems.of_users(csr(rows, num_items), np.arange(len(rows)))


def sorted_lists(users, items, seen, k):
    """The ranking by definition: stable float64 sort of all unseen items."""
    lists = np.full((len(users), k), -1)
    for user, vector in enumerate(users):
        scores = exact_dot(vector, items).numpy()
        order = [i for i in np.argsort(-scores, kind="stable") if i not in seen[user]][:k]
        lists[user, : len(order)] = order
    return lists


def random_case(num_users, num_items, dim, seed, coarse=False):
    random = torch.Generator().manual_seed(seed)
    users = torch.randn(num_users, dim, generator=random)
    items = torch.randn(num_items, dim, generator=random)
    if coarse:
        users, items = users.round(), items.round()
    seen = [
        set(torch.randint(num_items, (int(n),), generator=random).tolist())
        for n in torch.randint(0, num_items, (num_users,), generator=random)
    ]
    return users, items, seen


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
def test_lists_equal_a_sort_of_everything(num_users, num_items, dim, k, tile, batch, coarse, seed):
    users, items, seen = random_case(num_users, num_items, dim, seed, coarse)
    ranked = rank_users(users, local_tiles(items, tile), seen_of(seen, num_items), k, batch)
    np.testing.assert_array_equal(ranked, sorted_lists(users, items, seen, k))


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_a_coarse_matrix_product_does_not_show(precision):
    users, items, seen = random_case(40, 3000, 32, seed=3)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        ranked = rank_users(users, local_tiles(items, 1000), seen_of(seen, 3000), 20)
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(ranked, sorted_lists(users, items, seen, 20))


def test_nearly_equal_scores_are_told_apart_in_float64():
    items = torch.ones(400, 3)
    items[:, 0] = 2.0**20
    items[:, 1] = torch.randperm(400, generator=torch.Generator().manual_seed(0)) * 2.0**-10
    users = torch.ones(1, 3)
    ranked = rank_users(users, local_tiles(items, 150), seen_of([[]], 400), 10)
    np.testing.assert_array_equal(ranked[0], items[:, 1].argsort(descending=True)[:10])


def test_ties_go_to_the_lower_item_across_tiles():
    ranked = rank_users(
        torch.zeros(2, 4), local_tiles(torch.ones(500, 4), 64), seen_of([[], [1]], 500), 4
    )
    assert ranked.tolist() == [[0, 1, 2, 3], [0, 2, 3, 4]]


def test_all_items_seen_gives_an_empty_list():
    ranked = rank_users(
        torch.ones(1, 2), local_tiles(torch.ones(5, 2), 2), seen_of([range(5)], 5), 3
    )
    assert ranked.tolist() == [[-1, -1, -1]]


def test_vectors_that_are_not_finite_are_refused():
    items = torch.ones(5, 2)
    items[3, 1] = torch.nan
    with pytest.raises(FloatingPointError, match="item 3"):
        rank_users(torch.ones(1, 2), local_tiles(items, 2), seen_of([[]], 5), 3)
    with pytest.raises(FloatingPointError, match="user"):
        rank_users(torch.full((1, 2), torch.inf), local_tiles(items, 2), seen_of([[]], 5), 3)


def test_memory_mapped_half_precision_items(tmp_path):
    users, items, seen = random_case(6, 200, 8, seed=5)
    np.save(tmp_path / "items.npy", items.half().numpy())
    mapped = np.load(tmp_path / "items.npy", mmap_mode="r")
    ranked = rank_users(users, local_tiles(mapped, 64), seen_of(seen, 200), 10)
    np.testing.assert_array_equal(ranked, sorted_lists(users, items.half(), seen, 10))


def test_any_scores_are_ranked_as_vectors_are():
    users, items, seen = random_case(30, 200, 8, seed=6, coarse=True)
    scores = exact_dot(users[:, None], items)
    ranked = rank_scores(lambda block: scores[block], 30, seen_of(seen, 200), 15, 7)
    np.testing.assert_array_equal(ranked, sorted_lists(users, items, seen, 15))
