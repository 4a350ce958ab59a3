from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from egra_dist.catalog.kcore import k_core

pairs = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 8)), unique=True, min_size=1, max_size=50
)


def reference(edges, k):
    edges = list(edges)
    while True:
        users = Counter(user for user, _ in edges)
        items = Counter(item for _, item in edges)
        kept = [(user, item) for user, item in edges if min(users[user], items[item]) >= k]
        if kept == edges:
            return edges
        edges = kept


@settings(max_examples=60, deadline=None)
@given(pairs, st.integers(0, 5))
def test_k_core_is_the_largest_part_of_that_degree(edges, k):
    users, items = np.array(edges).T
    kept = k_core(users, items, k)
    assert [edges[row] for row in kept] == reference(edges, k)


def test_removal_goes_on_until_nothing_falls_short():
    # A path: each end has degree 1, and its removal leaves another end.
    users, items = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 2])
    assert len(k_core(users, items, 2)) == 0
    assert len(k_core(users, items, 1)) == 5
