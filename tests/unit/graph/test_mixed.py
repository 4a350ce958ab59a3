"""The modality branch's graphs with a share of the item graph are those of a dense float64 loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egra_dist.config import ItemGraphSettings
from egra_dist.graph import buckets
from egra_dist.graph.csr import Csr
from egra_dist.graph.item import merge_recipe, write_merged
from egra_dist.graph.knn import KnnGraph
from egra_dist.graph.mixed import write_mixed
from tests.matrices import csr_of, dense_of


def expected_of(own, neighbors, share):
    """Row by row: what is its own, and the mean over the neighbours that have the modality."""
    present = own.any(1)
    expected = np.zeros(own.shape)
    for item in np.flatnonzero(present):
        near = [other for other in neighbors[item] if other >= 0 and present[other]]
        expected[item] = own[item] * (1 - share if near else 1)
        for other in near:
            expected[item, other] += share / len(near)
    return expected


@given(
    st.integers(1, 12), st.integers(1, 4), st.floats(0.1, 0.9), st.integers(1, 40), st.integers(0)
)
@settings(max_examples=40)
def test_mixed_rows_are_those_of_a_dense_loop(tmp_path_factory, num_items, k, share, entries, seed):
    folder, random = tmp_path_factory.mktemp("mixed"), np.random.default_rng(seed)
    present = random.random(num_items) < 0.7
    own = random.random((num_items, num_items)) * (random.random((num_items, num_items)) < 0.3)
    np.fill_diagonal(own, 0.5)
    own[~present], own[:, ~present] = 0, 0
    neighbors = random.integers(-1, num_items, (num_items, k)).astype(np.int32)
    for item, row in enumerate(neighbors):  # each neighbour once, none of itself
        row[:] = np.pad(np.setdiff1d(row, [-1, item]), (0, k), constant_values=-1)[:k]
    csr_of(own).save(folder / "features" / "text")
    KnnGraph(neighbors, np.zeros(neighbors.shape, np.float32)).save(folder / "knn")
    (folder / "work").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "ENTRIES_PER_BLOCK", entries)
        counts = write_mixed(
            folder / "features", folder / "knn", share, folder / "mixed", folder / "work"
        )
    found = Csr.load(folder / "mixed" / "text")
    np.testing.assert_allclose(dense_of(found), expected_of(own, neighbors, share), atol=1e-6)
    assert counts == {"text": found.num_entries}
    assert all(np.all(np.diff(row) > 0) for row in np.split(found.indices, found.indptr[1:-1]))


def test_merge_leaves_the_modality_graphs_alone_without_a_share(tmp_path):
    own = np.eye(3)
    csr_of(own).save(tmp_path / "features" / "text")
    KnnGraph(np.array([[1], [2], [0]], np.int32), np.ones((3, 1), np.float32)).save(
        tmp_path / "knn"
    )
    plain = np.zeros((4, 4))
    plain[0, 1:] = plain[1:, 0] = 1
    csr_of(plain).save(tmp_path / "plain")

    def merge(share, name):
        settings = ItemGraphSettings(modality_share=share)
        return write_merged(tmp_path, tmp_path / "knn", settings, tmp_path / name)

    assert "num_modality_edges" not in merge(0, "without")
    assert not (tmp_path / "without" / "features").exists()
    assert merge(0.25, "with")["num_modality_edges"] == {"text": 6}
    found = dense_of(Csr.load(tmp_path / "with" / "features" / "text"))
    np.testing.assert_allclose(found, [[0.75, 0.25, 0], [0, 0.75, 0.25], [0.25, 0, 0.75]])
    one, other = (Csr.load(tmp_path / name / "behavior") for name in ("without", "with"))
    np.testing.assert_array_equal(dense_of(one), dense_of(other))


def test_merged_graphs_without_a_share_keep_their_name():
    recipe = {"direction": "union", "weight": "binary", "beta": 0.2}
    assert merge_recipe(ItemGraphSettings()) == recipe
    assert merge_recipe(ItemGraphSettings(modality_share=0.5)) == {**recipe, "modality_share": 0.5}
