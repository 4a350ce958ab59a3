"""Edges taken away from a finished graph: one-sided ones, and those into hubs."""

import numpy as np
from numpy.typing import NDArray

from egra_dist.graph.knn.graph import NO_NEIGHBOR, KnnGraph
from egra_dist.graph.knn.statistics import describe_graph


def keep_mutual(graph: KnnGraph) -> KnnGraph:
    """Keeps an edge only when its reverse is in the graph too."""
    rows, targets, _ = _flat(graph)
    forward = rows * graph.num_rows + targets
    backward = targets * graph.num_rows + rows
    return _keep(graph, np.isin(forward, backward))


def cap_in_degree(graph: KnnGraph, largest: int) -> KnnGraph:
    """Keeps the best ``largest`` edges into every row, ties by lower source row."""
    rows, targets, scores = _flat(graph)
    order = np.lexsort((rows, -scores, targets))
    ordered = targets[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    kept = np.zeros(len(order), bool)
    kept[order[rank < largest]] = True
    return _keep(graph, kept)


def _flat(graph: KnnGraph) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Source, target and score of every edge, row after row: ``[num_edges]``."""
    exists = graph.neighbors != NO_NEIGHBOR
    return (
        np.nonzero(exists)[0],
        graph.neighbors[exists].astype(np.int64),
        graph.scores[exists],
    )


def _keep(graph: KnnGraph, kept: NDArray[np.bool_]) -> KnnGraph:
    exists = graph.neighbors != NO_NEIGHBOR
    exists[exists] = kept
    order = np.argsort(~exists, axis=1, kind="stable")
    exists = np.take_along_axis(exists, order, axis=1)
    neighbors = np.take_along_axis(graph.neighbors, order, axis=1)
    scores = np.take_along_axis(graph.scores, order, axis=1)
    neighbors = np.where(exists, neighbors, NO_NEIGHBOR)
    scores = np.where(exists, scores, np.float32(-np.inf))
    num_usable = graph.num_rows - graph.statistics.get("num_unusable_rows", 0)
    statistics = {**graph.statistics, **describe_graph(neighbors, num_usable)}
    return KnnGraph(neighbors, scores, statistics)
