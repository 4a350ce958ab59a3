"""The faiss index of the items: its kind by their number, its effort by a check against exact.

A flat index compares with every item and is exact. Beyond some size HNSW and then inverted lists
look at a part of them; how large a part is raised until a sample of users gets what they ought to.
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egra_dist.config import ExportSettings

_log = logging.getLogger(__name__)

K = 20
"""Recall is that of so many items."""
_NUM_SAMPLED = 1000
_MOST_FLAT = 50_000
_MOST_HNSW = 500_000
_HNSW_LINKS = 32
_HNSW_EFFORT = 80
_LEAST_HNSW_EFFORT = 40
_MOST_HNSW_EFFORT = 4096
_ROWS_PER_BLOCK = 1 << 16
_TRAINED_PER_LIST = 64


@dataclass(frozen=True)
class IndexFacts:
    """What became of the index.

    Attributes:
        kind: ``flat``, ``hnsw`` or ``ivf``.
        recall_at_20: Share of the exactly best 20 items that it finds, mean of the sampled users.
        sampled_users: How many these were.
        effort: ``efSearch`` of HNSW, ``nprobe`` of inverted lists, number of items of a flat one.
    """

    kind: str
    recall_at_20: float
    sampled_users: int
    effort: int


def write_index(
    users: NDArray[np.float32],
    items: NDArray[np.float32],
    settings: ExportSettings,
    seed: int,
    path: Path,
) -> dict[str, Any]:
    """Builds the index of the items and writes it.

    Args:
        users: ``float32 [num_users, dim]``, memory-mapped or not; a sample of them asks.
        items: ``float32 [num_items, dim]``, the same.
        settings: Which kind, and what recall it must reach.
        seed: Of the sample.
        path: Where it goes.

    Returns:
        :class:`IndexFacts` as a dictionary.
    """
    import faiss

    random = np.random.default_rng(seed)
    num_sampled = min(_NUM_SAMPLED, len(users))
    sample = np.sort(random.choice(len(users), num_sampled, replace=False))
    queries = np.ascontiguousarray(users[sample])
    exact = _exact(queries, items)
    for kind in _kinds(len(items), settings):
        index = _build(kind, items, random)
        recall, effort = _tune(index, kind, queries, exact, settings.min_recall)
        if recall >= settings.min_recall:
            break
        _log.warning("index %s: recall@%d is %.4f, wanted %g", kind, K, recall, settings.min_recall)
    faiss.write_index(index, str(path))
    return asdict(IndexFacts(kind, recall, num_sampled, effort))


def _kinds(num_items: int, settings: ExportSettings) -> list[str]:
    """What to try, the first first; inverted lists reach any recall, by looking at all."""
    if settings.index != "auto":
        return [settings.index]
    if num_items <= _MOST_FLAT:
        return ["flat"]
    return ["hnsw", "ivf"] if num_items <= _MOST_HNSW else ["ivf"]


def _build(kind: str, items: NDArray[np.float32], random: np.random.Generator) -> Any:
    import faiss

    dim, inner_product = items.shape[1], faiss.METRIC_INNER_PRODUCT
    if kind == "flat":
        index: Any = faiss.IndexFlatIP(dim)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, _HNSW_LINKS, inner_product)
        index.hnsw.efConstruction = _HNSW_EFFORT
    else:
        num_lists = max(1, min(int(4 * len(items) ** 0.5), len(items) // 40))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, num_lists, inner_product)
        num_trained = min(len(items), _TRAINED_PER_LIST * num_lists)
        chosen = np.sort(random.choice(len(items), num_trained, replace=False))
        index.train(np.ascontiguousarray(items[chosen]))
    for block in _blocks(items):
        index.add(block)
    return index


def _tune(
    index: Any, kind: str, queries: NDArray[np.float32], exact: NDArray[np.int64], wanted: float
) -> tuple[float, int]:
    """Raises the effort of a search until the recall is reached; returns both."""
    if kind == "flat":
        return _recall(index, queries, exact), index.ntotal
    target, name = (index.hnsw, "efSearch") if kind == "hnsw" else (index, "nprobe")
    most = _MOST_HNSW_EFFORT if kind == "hnsw" else index.nlist
    effort = min(_LEAST_HNSW_EFFORT if kind == "hnsw" else 1, most)
    while True:
        setattr(target, name, effort)
        recall = _recall(index, queries, exact)
        if recall >= wanted or effort >= most:
            return recall, effort
        effort = min(2 * effort, most)


def _recall(index: Any, queries: NDArray[np.float32], exact: NDArray[np.int64]) -> float:
    _, found = index.search(queries, exact.shape[1])
    hits = [len(np.intersect1d(*pair)) for pair in zip(found, exact, strict=True)]
    return float(np.sum(hits) / exact.size)


def _exact(queries: NDArray[np.float32], items: NDArray[np.float32]) -> NDArray[np.int64]:
    """The best items of each query, ``int64 [num_queries, min(20, num_items)]``."""
    import faiss

    k = min(K, len(items))
    scores: Any = np.empty((len(queries), 0), np.float32)
    best: Any = np.empty((len(queries), 0), np.int64)
    start = 0
    for block in _blocks(items):
        new_scores, new = faiss.knn(
            queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT
        )
        scores = np.concatenate([scores, new_scores], axis=1)
        best = np.concatenate([best, new + start], axis=1)
        kept = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, best = (np.take_along_axis(part, kept, 1) for part in (scores, best))
        start += len(block)
    return np.asarray(best)


def _blocks(items: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(items), _ROWS_PER_BLOCK):
        yield np.ascontiguousarray(items[start : start + _ROWS_PER_BLOCK])
