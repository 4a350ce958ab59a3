import re

import numpy as np
import pytest

from egra_dist.errors import UserError
from egra_dist.graph.knn import KnnGraph
from egra_dist.graph.knn.combine import combine
from egra_dist.graph.knn.shape import cap_in_degree, keep_mutual


def graph_of(edges, num_rows, k):
    """A graph from {row: [(neighbor, score), ...]}."""
    neighbors = np.full((num_rows, k), -1, np.int32)
    scores = np.full((num_rows, k), -np.inf, np.float32)
    for row, found in edges.items():
        for place, (neighbor, score) in enumerate(found):
            neighbors[row, place], scores[row, place] = neighbor, score
    return KnnGraph(neighbors, scores)


def edges_of(graph):
    return {
        row: [(int(n), round(float(s), 5)) for n, s in zip(ids, scores, strict=True) if n >= 0]
        for row, (ids, scores) in enumerate(zip(graph.neighbors, graph.scores, strict=True))
    }


def test_mutual_edges_remain_and_move_to_the_front():
    graph = graph_of({0: [(2, 0.9), (1, 0.5)], 1: [(0, 0.5)], 2: [(1, 0.8)]}, 3, 2)
    mutual = keep_mutual(graph)
    assert edges_of(mutual) == {0: [(1, 0.5)], 1: [(0, 0.5)], 2: []}
    assert mutual.neighbors[0].tolist() == [1, -1]
    assert mutual.statistics["num_edges"] == 2
    assert mutual.statistics["share_short_rows"] == 2 / 3
    assert mutual.statistics["in_degree"]["max"] == 1


def test_a_hub_keeps_its_best_edges_and_ties_go_to_the_lower_row():
    graph = graph_of({0: [(3, 0.1)], 1: [(3, 0.7), (0, 0.2)], 2: [(3, 0.1)]}, 4, 2)
    capped = cap_in_degree(graph, 2)
    assert edges_of(capped) == {0: [(3, 0.1)], 1: [(3, 0.7), (0, 0.2)], 2: [], 3: []}


def test_union_adds_weighted_scores_and_keeps_the_best():
    image = graph_of({0: [(1, 0.8), (2, 0.6)]}, 3, 2)
    text = graph_of({0: [(2, 0.9)], 1: [(0, 0.3)]}, 3, 2)
    both = combine({"image": image, "text": text}, "union", k=1, weights=[1.0, 2.0])
    assert edges_of(both) == {0: [(2, 2.4)], 1: [(0, 0.6)], 2: []}
    assert both.statistics["num_edges"] == 2
    assert set(both.statistics["tables"]) == {"image", "text"}


def test_intersection_judges_a_pair_by_the_tables_that_know_both_rows():
    image = graph_of({0: [(1, 0.8), (2, 0.6)], 1: [(0, 0.8)], 2: [(0, 0.6)]}, 4, 2)
    text = graph_of({0: [(2, 0.9), (3, 0.5)], 2: [(3, 0.4)], 3: [(0, 0.5)]}, 4, 2)
    both = combine({"image": image, "text": text}, "intersection", k=2, weights=[3.0, 1.0])
    # Row 1 has no text and row 3 no image: their pairs need only the table that has both.
    assert edges_of(both)[0] == [(1, 0.8), (2, 0.675), (3, 0.5)][:2]
    assert edges_of(both)[1] == [(0, 0.8)]
    assert edges_of(both)[2] == [(3, 0.4)]
    assert edges_of(both)[3] == [(0, 0.5)]


def test_tables_of_different_length_are_refused():
    with pytest.raises(UserError, match=r"\[3, 4\] rows"):
        combine({"image": graph_of({}, 3, 1), "text": graph_of({}, 4, 1)}, "union", 1)
    with pytest.raises(UserError, match="2 for 1 tables"):
        combine({"image": graph_of({}, 3, 1)}, "union", 1, weights=[1, 2])


@pytest.mark.parametrize("weights", [[0, 0], [2, -1]])
def test_weights_that_mean_nothing_are_refused(weights):
    graphs = {"image": graph_of({}, 3, 1), "text": graph_of({}, 3, 1)}
    with pytest.raises(UserError, match=re.escape(f"weights: {weights}, expected 0 or more")):
        combine(graphs, "union", 1, weights)
