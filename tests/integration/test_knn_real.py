"""Real vectors: not centred, with missing rows and duplicates."""

import os
from pathlib import Path

import numpy as np
import pytest

from egra_dist.graph.knn import KnnSettings, build_knn

DATA = Path(os.environ.get("EGRA_DATA", Path(__file__).parents[3] / "shared" / "data"))
FILES = ["tiktok/image_feat.npy", "microlens50k/text_feat.npy", "microlens50k/image_feat.npy"]

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="no real data")


def exact_last_scores(vectors, k):
    """Score of the k-th neighbour of 300 rows, in float64, and which rows have a vector."""
    rows = vectors.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    usable = norms[:, 0] > 0
    rows = np.divide(rows, norms, where=norms > 0, out=np.zeros_like(rows))
    sample = np.random.default_rng(0).choice(np.flatnonzero(usable), 300, replace=False)
    scores = rows[sample] @ rows.T
    scores[:, ~usable] = -np.inf
    scores[np.arange(300), sample] = -np.inf
    return rows, sample, -np.sort(-scores, axis=1)[:, k - 1], usable


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("method", ["exact", "routed"])
def test_the_audited_recall_holds_and_missing_rows_have_no_edges(name, method):
    vectors = np.load(DATA / name)
    graph = build_knn(vectors, KnnSettings(k=10, method=method, recall=0.99, list_size=400))
    rows, sample, last, usable = exact_last_scores(vectors, 10)
    neighbors = graph.neighbors[sample].astype(int)
    assert (neighbors >= 0).all()
    scores = np.einsum("id,ijd->ij", rows[sample], rows[neighbors])
    recall = (scores >= last[:, None] - 1e-6).mean()
    assert recall >= (0.985 if method == "routed" else 1.0)
    assert graph.statistics["recall"] >= 0.99
    assert (graph.neighbors[~usable] == -1).all()
    assert usable[graph.neighbors[usable]].all()
    assert graph.statistics["num_unusable_rows"] == (~usable).sum()
