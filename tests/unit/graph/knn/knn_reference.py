"""A float64 reference: all pairs, plainly."""

import numpy as np


def reference_scores(vectors, metric, present=None):
    """[n, n] float64 scores; -inf for pairs that may not be neighbours."""
    rows = np.asarray(vectors, dtype=np.float64)
    with np.errstate(all="ignore"):
        usable = np.isfinite(rows).all(1) & (np.abs(rows) > 0).any(1)
        if present is not None:
            usable &= present
        rows = np.where(usable[:, None], rows, 0)
        if metric == "cosine":
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            rows = np.nan_to_num(rows)
    if metric == "l2":
        squares = (rows**2).sum(1)
        scores = 2 * rows @ rows.T - squares[:, None] - squares
    else:
        scores = rows @ rows.T
    np.fill_diagonal(scores, -np.inf)
    scores[~usable] = -np.inf
    scores[:, ~usable] = -np.inf
    return scores


def assert_exact(graph, vectors, metric, present=None, tolerance=1e-5):
    """The graph holds the k best of every row, up to ties within the tolerance."""
    truth = reference_scores(vectors, metric, present)
    scale = np.abs(truth[np.isfinite(truth)]).max(initial=1.0)
    k = graph.k
    best = -np.sort(-truth, axis=1)[:, :k]
    best = np.pad(best, ((0, 0), (0, k - best.shape[1])), constant_values=-np.inf)
    found = graph.neighbors >= 0
    assert np.array_equal(found, np.isfinite(best))
    rows = np.nonzero(found)[0]
    true_scores = truth[rows, graph.neighbors[found]]
    np.testing.assert_allclose(true_scores, best[found], atol=tolerance * scale, rtol=0)
    np.testing.assert_allclose(graph.scores[found], true_scores, atol=tolerance * scale, rtol=0)
    for row, mask in zip(graph.neighbors, found, strict=True):
        assert len(set(row[mask])) == mask.sum()
