"""Item graphs from pretrained vectors, raw features, both, or vectors of one's own."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse

from egra_dist.catalog.catalog import Catalog, Features
from egra_dist.config import ItemGraphSettings
from egra_dist.errors import UserError
from egra_dist.graph.csr import Csr
from egra_dist.graph.knn import KnnSettings
from egra_dist.graph.neighbors import ItemNeighbors, Search
from egra_dist.manifest import Manifest

NUM_ITEMS, K, DIM = 60, 4, 8
WITHOUT_TEXT = 7


@dataclass(frozen=True)
class Shelf(Catalog):
    """A catalogue of items alone."""

    rows: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def modalities(self):
        return tuple(sorted(self.rows))

    def features(self, modality):
        values = self.rows[modality]
        return Features(values, (values != 0).any(1))

    def raw_ids(self, entities):
        return pa.chunked_array([np.arange(100, 100 + NUM_ITEMS)])


@pytest.fixture
def vectors():
    """Image and text agree in part, so that their neighbours have some in common."""
    random = np.random.default_rng(0)
    shared = random.standard_normal((NUM_ITEMS, DIM))
    views = {
        name: (shared + random.standard_normal((NUM_ITEMS, DIM)) * 0.4).astype(np.float32)
        for name in ("image", "text", "pretrained")
    }
    views["text"][WITHOUT_TEXT] = 0
    return views


@pytest.fixture
def shelf(vectors):
    rows = {name: vectors[name] for name in ("image", "text")}
    return Shelf(Path("shelf"), Manifest("catalog", "0" * 16), rows=rows)


def cosines(values):
    values = values.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit = np.divide(values, lengths, where=lengths > 0, out=np.zeros_like(values))
    scores = unit @ unit.T
    np.fill_diagonal(scores, -np.inf)
    missing = lengths[:, 0] == 0
    scores[missing] = scores[:, missing] = -np.inf
    return scores


def nearest(scores, k=K):
    """For each row the k columns of largest score, those of -inf left out."""
    order = np.argsort(-scores, axis=1)[:, :k]
    return [
        {int(item) for item in best if np.isfinite(scores[row, item])}
        for row, best in enumerate(order)
    ]


def find(shelf, folder, pretrained=None, **settings):
    graph_settings = ItemGraphSettings(**settings)
    source = ItemNeighbors(shelf, graph_settings, KnnSettings(k=K), pretrained)
    graph = source.find(Search(folder / "work"))
    assert graph.neighbors.shape == (NUM_ITEMS, K)
    return [{int(item) for item in row if item >= 0} for row in graph.neighbors]


def save_pretrained(folder, vectors):
    np.save(folder / "item_vectors.npy", vectors["pretrained"])
    return folder


def test_pretrained_vectors_decide_alone(tmp_path, shelf, vectors):
    found = find(shelf, tmp_path, save_pretrained(tmp_path, vectors))
    assert found == nearest(cosines(vectors["pretrained"]))


def test_own_vectors_stand_for_items_by_raw_id(tmp_path, shelf, vectors):
    """Items without a vector have no neighbours and are nobody's."""
    order = np.random.default_rng(1).permutation(NUM_ITEMS)[:-5]
    table = {"raw_id": order + 100, "vector": list(vectors["pretrained"][order])}
    path = tmp_path / "own.parquet"
    pq.write_table(pa.table(table), path)
    values = np.zeros_like(vectors["pretrained"])
    values[order] = vectors["pretrained"][order]
    found = find(shelf, tmp_path, source="vectors", vectors=path)
    assert found == nearest(cosines(values))
    assert sum(not neighbors for neighbors in found) == 5


def test_raw_intersection_has_what_all_modalities_of_an_item_agree_on(tmp_path, shelf, vectors):
    image, text = (nearest(cosines(vectors[name])) for name in ("image", "text"))
    found = find(shelf, tmp_path, source="raw")
    for item in range(NUM_ITEMS):
        in_both = image[item] & text[item]
        if item == WITHOUT_TEXT:  # judged by its image alone
            in_both = image[item]
        elif WITHOUT_TEXT in image[item]:
            in_both = in_both | {WITHOUT_TEXT}
        assert found[item] == in_both
    assert 0 < sum(map(len, found)) < NUM_ITEMS * K


@pytest.mark.parametrize("weights", [{}, {"image": 3.0}, {"image": 0.2, "text": 1.5}])
def test_raw_union_has_the_edges_of_largest_weighted_score(tmp_path, shelf, vectors, weights):
    total = np.zeros((NUM_ITEMS, NUM_ITEMS))
    exists = np.zeros((NUM_ITEMS, NUM_ITEMS), dtype=bool)
    for name in ("image", "text"):
        scores = cosines(vectors[name])
        for item, neighbors in enumerate(nearest(scores)):
            chosen = list(neighbors)
            total[item, chosen] += weights.get(name, 1.0) * scores[item, chosen]
            exists[item, chosen] = True
    found = find(shelf, tmp_path, source="raw", combine="union", modality_weights=weights)
    assert found == nearest(np.where(exists, total, -np.inf))


@pytest.mark.parametrize("how", ["intersection", "union"])
def test_a_modality_of_weight_0_is_as_if_it_were_not_there(tmp_path, shelf, vectors, how):
    weights = {"image": 0.0, "text": 2.0}
    found = find(shelf, tmp_path, source="raw", combine=how, modality_weights=weights)
    assert found == nearest(cosines(vectors["text"]))
    assert found[WITHOUT_TEXT] == set()


def test_items_of_which_nothing_is_known_are_no_neighbours(tmp_path, shelf, vectors):
    """Of a pretrained recommender that knows interactions alone."""
    users, items = np.divmod(np.arange(2 * NUM_ITEMS), NUM_ITEMS)
    chosen = items >= 7
    pairs = (users[chosen], items[chosen])
    matrix = scipy.sparse.csr_array((np.ones(chosen.sum(), np.float32), pairs), (2, NUM_ITEMS))
    Csr.from_scipy(matrix).save(tmp_path / "training")
    known = vectors["pretrained"].copy()
    known[:7] = 0
    folder = save_pretrained(tmp_path, vectors)
    source = ItemNeighbors(
        shelf, ItemGraphSettings(), KnnSettings(k=K), folder, tmp_path / "training"
    )
    graph = source.find(Search(tmp_path / "work"))
    assert [{int(i) for i in row if i >= 0} for row in graph.neighbors] == nearest(cosines(known))
    assert source.recipe() != replace(source, training=None).recipe()


def test_both_is_the_union_of_pretrained_and_raw(tmp_path, shelf, vectors):
    pretrained = save_pretrained(tmp_path, vectors)
    alone = find(shelf, tmp_path, pretrained)
    raw = find(shelf, tmp_path, source="raw")
    both = find(shelf, tmp_path, pretrained, source="both")
    for item in range(NUM_ITEMS):
        assert both[item] <= alone[item] | raw[item]
        assert alone[item] & raw[item] <= both[item]  # their scores add up
        assert len(both[item]) == K


def recipe(shelf, **settings):
    return ItemNeighbors(shelf, ItemGraphSettings(**settings), KnnSettings(k=K)).recipe()


def test_recipe_has_what_decides_the_result_and_nothing_else(tmp_path, shelf):
    plain = recipe(shelf)
    assert plain == recipe(shelf, beta=3, direction="mutual", combine="union")
    raw = recipe(shelf, source="raw")
    assert raw != recipe(shelf, source="raw", combine="union")
    assert raw != recipe(shelf, source="raw", modality_weights={"image": 2})
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    one.write_bytes(b"some vectors")
    two.write_bytes(b"other vectors")
    own = recipe(shelf, source="vectors", vectors=one)
    assert own != recipe(shelf, source="vectors", vectors=two)
    two.write_bytes(b"some vectors")
    assert own == recipe(shelf, source="vectors", vectors=two)


def test_recipe_of_own_vectors_that_are_not_there(tmp_path, shelf):
    with pytest.raises(UserError, match=r"absent.parquet: cannot be read"):
        recipe(shelf, source="vectors", vectors=tmp_path / "absent.parquet")
