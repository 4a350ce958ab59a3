"""Graphs made block by block on disk are, bit for bit, those that scipy makes in memory."""

import json
import pickle
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import scipy_graphs as reference
from hypothesis import example, given, settings
from hypothesis import strategies as st

from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.writer import writing_catalog
from egra_dist.config import ItemGraphSettings
from egra_dist.errors import UserError
from egra_dist.graph import buckets, edges, item
from egra_dist.graph.behavior import write_behavior
from egra_dist.graph.csr import Csr
from egra_dist.graph.knn import KnnGraph, KnnSettings, build_knn


def assert_same(found, expected):
    assert found.num_columns == expected.num_columns
    for name, dtype in (("indptr", np.int64), ("indices", np.int32), ("values", np.float32)):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == dtype
        np.testing.assert_array_equal(one.view(np.uint8), other.view(np.uint8), err_msg=name)


def pickled_map(function, things):
    """As a task on another process would see it."""
    return [pickle.loads(pickle.dumps(function))(pickle.loads(pickle.dumps(x))) for x in things]


class Given:
    """A catalogue of interactions as they are given: in any order, some of them twice."""

    def __init__(self, folder, num_users, num_items, pairs, num_parts=2):
        self.users, self.items = np.array(pairs, np.int32).reshape(-1, 2).T
        with writing_catalog(folder, {}, {}) as writer:
            for entities, number in (("users", num_users), ("items", num_items)):
                writer.add_entities(entities, _ids(number))
            for part in np.array_split(np.arange(len(self.users)), num_parts):
                writer.add_interactions("train", self.users[part], self.items[part])
        self.catalog = Catalog.open(folder)
        self.matrix = reference.training_matrix(self.users, self.items, (num_users, num_items))


def _ids(number):
    import pyarrow as pa

    return pa.table({"raw_id": np.arange(number)})


def random_neighbors(random, num_items, k):
    """A kNN graph with rows that are short or empty, and scores of either sign."""
    neighbors = np.full((num_items, k), -1, np.int32)
    for row in range(num_items):
        others = np.setdiff1d(np.arange(num_items), [row])
        size = min(random.integers(0, k + 1), len(others))
        neighbors[row, :size] = random.choice(others, size, replace=False)
    # Few distinct scores, and the same both ways for some pairs.
    scores = random.choice(np.array([-0.25, 0, 0.1, 0.7, 0.93], np.float32), neighbors.shape)
    return KnnGraph(neighbors, np.where(neighbors < 0, -np.inf, scores).astype(np.float32))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(buckets, "ENTRIES_PER_BLOCK", 7)
    monkeypatch.setattr(edges, "EDGES_PER_BLOCK", 10)


CASES = st.tuples(
    st.integers(1, 12),
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 8)), min_size=1, max_size=60),
    st.integers(0, 2**16),
)


@given(
    CASES,
    st.sampled_from(["directed", "union", "mutual"]),
    st.sampled_from(["binary", "cosine"]),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.integers(1, 40),
)
@example((3, 2, [(0, 0)], 0), "union", "cosine", 0.2, 1)
@settings(max_examples=30, deadline=None)
def test_graphs_are_those_of_scipy(case, direction, weight, beta, entries):
    num_users, num_items, pairs, seed = case
    pairs = [(user % num_users, thing % num_items) for user, thing in pairs]
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "ENTRIES_PER_BLOCK", entries)
        patch.setattr(edges, "EDGES_PER_BLOCK", 10)
        folder = Path(name)
        known = Given(folder / "catalog", num_users, num_items, pairs)
        num_interactions = write_behavior(known.catalog, folder, folder / "work", pickled_map)
        assert num_interactions == known.matrix.num_entries
        training = Csr.load(folder / "training")
        assert training.values is None
        np.testing.assert_array_equal(training.indptr, known.matrix.indptr)
        np.testing.assert_array_equal(training.indices, known.matrix.indices)
        assert_same(Csr.load(folder / "plain"), reference.merged(known.matrix, None, 0))

        knn = random_neighbors(np.random.default_rng(seed), num_items, k=3)
        knn.save(folder / "knn")
        chosen = ItemGraphSettings(direction=direction, weight=weight, beta=beta)
        facts = item.write_merged(folder, folder / "knn", chosen, folder, pickled_map)
        of_items = reference.item_adjacency(knn.neighbors, knn.scores, direction, weight)
        expected = reference.merged(known.matrix, of_items, beta)
        assert_same(Csr.load(folder / "behavior"), expected)
        assert facts == {
            "num_item_edges": of_items.num_entries,
            "num_edges": expected.num_entries,
            "max_item_degree": np.diff(of_items.indptr).max(),
            "num_items_without_neighbors": (np.diff(of_items.indptr) == 0).sum(),
        }
        assert not (folder / "work").exists()


def test_feature_graph_is_that_of_scipy(tmp_path, small_blocks):
    """Items neighbour themselves, but for those without features."""
    random = np.random.default_rng(1)
    features = random.standard_normal((30, 4)).astype(np.float32)
    present = random.random(30) < 0.8
    features[~present] = 0
    given_catalog = Given(tmp_path / "catalog", 5, 30, [(user, user) for user in range(5)])
    folder = tmp_path / "catalog" / "features"
    folder.mkdir()
    np.save(folder / "text.npy", features)
    np.save(folder / "text.present.npy", present)
    manifest = tmp_path / "catalog" / "manifest.json"
    fields = json.loads(manifest.read_text())
    fields["counts"]["modalities"] = {"text": {"dim": 4}}
    manifest.write_text(json.dumps(fields))
    catalog = Catalog.open(given_catalog.catalog.path)
    counts = item.write_graphs(catalog, ["text"], 4, tmp_path / "graphs")

    found = Csr.load(tmp_path / "graphs" / "features" / "text")
    knn = build_knn(features, KnnSettings(k=3), present)
    adjacency = reference.item_adjacency(knn.neighbors, knn.scores, loops=present)
    assert_same(found, reference.normalized(adjacency))
    assert counts["num_edges"] == {"training": 5, "text": adjacency.num_entries}


NEIGHBORS = np.array([[1, 2], [0, -1], [1, 0], [-1, -1]], dtype=np.int32)
SCORES = np.array([[0.9, 0.5], [0.9, -np.inf], [0.3, 0.5], [-np.inf, -np.inf]], dtype=np.float32)


@pytest.mark.parametrize(
    ("direction", "weight", "expected"),
    [
        ("directed", "binary", [[0, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]),
        ("union", "binary", [[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]),
        ("mutual", "binary", [[0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]),
        ("union", "cosine", [[0, 0.9, 0.5, 0], [0.9, 0, 0.3, 0], [0.5, 0.3, 0, 0], [0] * 4]),
    ],
)
def test_item_edges_by_direction_and_weight(tmp_path, direction, weight, expected):
    KnnGraph(NEIGHBORS, SCORES).save(tmp_path / "knn")
    chosen = ItemGraphSettings(direction=direction, weight=weight)
    item.write_items(tmp_path / "knn", chosen, tmp_path / "items", tmp_path / "work")
    found = Csr.load(tmp_path / "items")
    dense = np.zeros((4, 4), np.float32)
    rows = np.repeat(np.arange(4), np.diff(found.indptr))
    dense[rows, found.indices] = 1 if found.values is None else found.values
    np.testing.assert_array_equal(dense, np.array(expected, np.float32))


def test_blocks_hold_about_as_many_entries_each_and_all_rows(small_blocks):
    entries = np.array([3, 0, 9, 1, 0, 2, 2, 2, 0, 0])
    blocks = buckets.balanced_blocks(entries, rows_per_bin=2, num_rows=19)
    assert blocks.starts[[0, -1]].tolist() == [0, 19]
    before = np.concatenate([[0], np.cumsum(np.repeat(entries, 2)[:19])]) / 2
    assert np.diff(before[blocks.starts]).max() <= 7 + entries.max()
    assert buckets.balanced_blocks(np.zeros(1, int), 4, 4).starts.tolist() == [0, 4]


def test_a_task_that_is_done_again_leaves_the_same(tmp_path, small_blocks):
    """A worker that died half way is replaced by another."""

    def twice(function, things):
        things = list(things)
        for thing in things:
            function(thing)
        return [function(thing) for thing in things]

    pairs = np.random.default_rng(0).integers(0, 9, (50, 2)).tolist()
    known = Given(tmp_path / "catalog", 9, 9, pairs)
    write_behavior(known.catalog, tmp_path, tmp_path / "work", twice)
    assert_same(Csr.load(tmp_path / "plain"), reference.merged(known.matrix, None, 0))


def test_memory_does_not_grow_with_the_edges(tmp_path, monkeypatch):
    monkeypatch.setattr(buckets, "ENTRIES_PER_BLOCK", 4_000)
    monkeypatch.setattr(edges, "EDGES_PER_BLOCK", 4_000)
    random = np.random.default_rng(0)

    def peak(num_edges):
        folder = tmp_path / str(num_edges)
        pairs = random.integers(0, 1000, (num_edges, 2))
        known = Given(folder / "catalog", 1000, 1000, pairs)
        tracemalloc.start()
        write_behavior(known.catalog, folder, folder / "work")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(20_000), peak(200_000)
    assert many < 2 * few
    assert many < 200_000 * 8  # not even one key for each edge


def test_blocks_of_matrices_whose_last_rows_are_the_same(small_blocks):
    first = Csr(np.array([0, 8, 8, 10]), np.zeros(10, np.int32), None, 3)
    second = Csr(np.array([0, 5]), np.zeros(5, np.int32), None, 3)
    assert buckets.blocks_of([first], 3).starts.tolist() == [0, 1, 3]  # 8, 2
    assert buckets.blocks_of([first, second], 3).starts.tolist() == [0, 1, 3]  # 8, 7
    assert buckets.blocks_of([second, second, first], 3).starts.tolist() == [0, 1, 3]  # 8, 12


def test_more_nodes_than_indices_can_tell_apart_are_refused(tmp_path):
    catalog = Given(tmp_path / "catalog", 2, 2, [(0, 0)]).catalog
    catalog.manifest.counts["num_items"] = 2**31 - 1
    with pytest.raises(UserError, match="2,147,483,649 users and items, at most 2,147,483,647"):
        write_behavior(catalog, tmp_path, tmp_path / "work")
