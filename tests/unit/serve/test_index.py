import faiss
import numpy as np
import pytest

from egra_dist.config import ExportSettings
from egra_dist.serve import index as index_module
from egra_dist.serve.index import write_index


def low_rank(num_rows, seed):
    """Vectors as trained ones: correlated, of lengths that vary."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((num_rows, 8)) @ random.standard_normal((8, 16))
    return (mixed * random.lognormal(0, 0.3, (num_rows, 1))).astype(np.float32)


USERS, ITEMS = low_rank(300, 0), low_rank(3000, 1)


@pytest.fixture
def sizes(monkeypatch):
    monkeypatch.setattr(index_module, "_MOST_FLAT", 1000)
    monkeypatch.setattr(index_module, "_MOST_HNSW", 2000)


def write(folder, items, **settings):
    path = folder / "index.faiss"
    facts = write_index(USERS, items, ExportSettings(**settings), 7, path)
    return facts, faiss.read_index(str(path))


def recall(index, items):
    exact = np.argsort(-(USERS @ items.T), axis=1)[:, :20]
    _, found = index.search(USERS, 20)
    return np.mean([len(set(a) & set(b)) / 20 for a, b in zip(found, exact, strict=True)])


@pytest.mark.parametrize(("num_items", "kind"), [(1000, "flat"), (2000, "hnsw"), (3000, "ivf")])
def test_number_of_items_decides(tmp_path, sizes, num_items, kind):
    facts, index = write(tmp_path, ITEMS[:num_items])
    assert facts["kind"] == kind and facts["sampled_users"] == 300
    assert index.ntotal == num_items
    assert facts["recall_at_20"] == pytest.approx(recall(index, ITEMS[:num_items]))
    assert facts["recall_at_20"] >= 0.99


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_effort_is_raised_until_the_recall_is_reached(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(index_module, "_LEAST_HNSW_EFFORT", 1)
    easy, _ = write(tmp_path, ITEMS, index=kind, min_recall=0.3)
    hard, index = write(tmp_path, ITEMS, index=kind, min_recall=0.99)
    assert hard["effort"] > easy["effort"]
    assert hard["recall_at_20"] >= 0.99
    assert (index.hnsw.efSearch if kind == "hnsw" else index.nprobe) == hard["effort"]


def test_lists_take_over_where_the_graph_does_not_reach_it(tmp_path, sizes, monkeypatch):
    monkeypatch.setattr(index_module, "_MOST_HNSW_EFFORT", 1)
    monkeypatch.setattr(index_module, "_HNSW_LINKS", 2)
    facts, _ = write(tmp_path, ITEMS[:2000], min_recall=1)
    assert (facts["kind"], facts["recall_at_20"]) == ("ivf", 1)


def test_fewer_items_than_are_asked_for(tmp_path):
    facts, _ = write(tmp_path, ITEMS[:5])
    assert facts["recall_at_20"] == 1
