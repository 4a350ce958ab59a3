import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from egra_dist.graph.knn.edges import (
    as_edges,
    as_pairs,
    merge,
    no_edges,
    pairs_of_range,
    range_of,
)

finite = st.sampled_from([-1.5, -0.0, 0.0, 0.25, 0.5, 3.0])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=40, unique=True), st.data()
)
def test_merge_keeps_the_best_once_and_breaks_ties_by_id(entries, data):
    scores = [data.draw(finite) for _ in entries]
    copies = data.draw(st.lists(st.integers(0, max(0, len(entries) - 1)), max_size=10))
    chosen = list(range(len(entries))) + (copies if entries else [])
    rows, ids, values = (
        np.array([source[i] for i in chosen])
        for source in ([e[0] for e in entries], [e[1] for e in entries], scores)
    )
    pairs = as_pairs(rows.astype(int) + 10, ids.astype(int), values.astype(np.float32))
    merged = merge(10, no_edges(5, 2), [pairs], k=3)
    for row in range(5):
        own = sorted((-s, i) for (r, i), s in zip(entries, scores, strict=True) if r == row)[:3]
        assert merged["id"][row].tolist() == [i for _, i in own] + [-1] * (3 - len(own))
        assert np.array_equal(merged["score"][row, : len(own)], [-s for s, _ in own])


def test_merge_breaks_ties_by_precedence():
    edges = as_edges(np.array([[0, 1, 2]]), np.float32([[0.5, 0.5, 0.5]]))
    merged = merge(0, edges, [], k=2, precedence=np.array([7, 9, 1]))
    assert merged["id"].tolist() == [[2, 0]]


def test_pairs_of_a_range_of_rows(tmp_path):
    pairs = as_pairs(np.array([5, 1, 3, 3]), np.arange(4), np.zeros(4, np.float32))
    np.save(tmp_path / "pairs.npy", pairs)
    assert pairs_of_range(tmp_path / "pairs.npy", 2, 5)["id"].tolist() == [2, 3]
    assert len(pairs_of_range(tmp_path / "pairs.npy", 6, 9)) == 0


def test_a_range_is_found_in_a_file_without_reading_all_of_it(tmp_path):
    rows = np.sort(np.random.default_rng(0).integers(0, 100, 5000))
    np.save(tmp_path / "pairs.npy", as_pairs(rows, rows, rows))
    field = np.load(tmp_path / "pairs.npy", mmap_mode="r")["row"]

    class Counted:
        reads = 0

        def __len__(self):
            return len(field)

        def __getitem__(self, place):
            self.reads += 1
            return field[place]

    for first, last in ((0, 1), (17, 40), (99, 200), (60, 60), (-5, 0)):
        counted = Counted()
        expected = slice(*np.searchsorted(rows, [first, last]))
        assert range_of(counted, first, last) == expected
        assert counted.reads <= 2 * 14
