"""What is drawn is what was recorded, and what is counted is right."""

from pathlib import Path

import numpy as np
import pytest

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.figures import alignment, neighbors
from egra_dist.figures.record import FigureLog
from egra_dist.graph.behavior import merge
from egra_dist.graph.csr import Csr
from egra_dist.graph.knn import KnnGraph
from egra_dist.tracking.artifacts import ArtifactLog
from egra_dist.tracking.plots import panels, to_svg
from egra_dist.tracking.spool import Value
from tests.matrices import csr_of

INTERACTIONS = np.array([[1, 1, 0, 0], [0, 1, 1, 0]])
EDGES = np.array([[0, 1, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])


def behavior() -> Csr:
    return merge(csr_of(INTERACTIONS), csr_of(EDGES), beta=1.0)


def test_item_edges_and_degrees_are_those_of_the_merged_graph():
    edges = neighbors.item_edges(behavior(), num_users=2)
    dense = np.zeros((4, 4), int)
    dense[np.repeat(np.arange(4), np.diff(edges.indptr)), edges.indices] = 1
    assert (dense == EDGES).all()
    degrees = neighbors.item_degrees(behavior(), 2, INTERACTIONS.sum(axis=0))
    assert degrees["out"].tolist() == EDGES.sum(axis=1).tolist()
    assert degrees["in"].tolist() == EDGES.sum(axis=0).tolist()
    part = neighbors.item_edges(behavior(), num_users=2, max_rows=2)
    assert np.diff(part.indptr).tolist() == [2, 1]


def test_agreement_is_the_share_of_edges_that_a_modality_has():
    edges = neighbors.item_edges(behavior(), num_users=2)
    looks = csr_of(np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    words = csr_of(np.array([[1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    shares = neighbors.agreement(edges, {"looks": looks, "words": words})
    assert shares == {"looks": 2 / 5, "words": 2 / 5, "any": 3 / 5, "all": 1 / 5}
    assert neighbors.agreement(edges, {}) == {}


def test_degrees_by_popularity_are_means_of_tenths():
    counts, degrees = np.arange(20)[::-1], np.linspace(0, 1, 20)
    labels, means = alignment.by_popularity(counts, degrees)
    assert labels[0] == "0 to 1" and labels[-1] == "18 to 19"
    assert means == pytest.approx([degrees[counts // 2 == tenth].mean() for tenth in range(10)])
    assert len(alignment.by_popularity(np.arange(3), np.ones(3))[0]) == 3


def test_the_schedule_shows_strength_and_scores():
    series = {
        "alignment/lambda": [Value(0, 0.0), Value(10, 0.02)],
        "valid/recall_at_20": [Value(5, 0.1), Value(10, 0.3)],
    }
    figure = alignment.draw_schedule(series, "recall_at_20")
    left, right = figure.axes
    assert left.lines[0].get_ydata().tolist() == [0.0, 0.02]
    assert right.lines[0].get_xdata().tolist() == [5, 10]
    assert "0.3000" in to_svg(figure, "schedule")


def test_histograms_hold_everybody():
    weights = {"users": np.array([0.5, 1.0, 1.5]), "items": np.ones(7)}
    figure = alignment.draw_weights(weights)
    heights = [sum(bar.get_height() for bar in axes.patches) for axes in figure.axes]
    assert heights == [3, 7]


def test_examples_go_from_popular_to_rare_with_titles_or_ids(tmp_path):
    settings = SynthSettings(num_items=120, num_users=40, num_interactions=300)
    catalog = synthesize(settings, tmp_path / "catalog")
    counts = np.bincount(catalog.interactions("train")[1], minlength=120)
    found = np.stack([(np.arange(120) + 1) % 120, np.full(120, -1)], axis=1)
    graph = KnnGraph(found.astype(np.int32), np.full((120, 2), 0.5, np.float32))
    table = neighbors.example_rows(catalog, counts, graph)
    assert set(map(len, table.values())) == {12}
    assert table["training interactions"] == sorted(table["training interactions"], reverse=True)
    ids = [str(name) for name in catalog.raw_ids("items")]
    following = [ids[(ids.index(item) + 1) % 120] for item in table["item"]]
    assert table["neighbour"] == following


def test_a_picture_that_cannot_be_drawn_is_said_and_missed(tmp_path, caplog):
    log = FigureLog(experiment=None, is_wanted=True)
    log.item_graph(None, tmp_path, tmp_path, tmp_path / "missing", "run", is_main=True)
    assert "item graph: figures were not recorded: FileNotFoundError" in caplog.text


class Kept(ArtifactLog):
    """Keeps artifacts in a folder."""

    def __init__(self, folder):
        self.folder = folder

    def _put(self, path, write, run_id):
        file = self.folder / f"{run_id}-{Path(path).name}"
        write(file)

    def set_tags(self, tags, run_id=None):
        raise AssertionError("nobody asked for tags")


def test_a_figure_is_drawn_once_for_several_runs(tmp_path, monkeypatch):
    figure, _ = panels(1)
    drawn = []
    draw = type(figure).savefig
    monkeypatch.setattr(
        type(figure), "savefig", lambda self, *a, **k: (drawn.append(1), draw(self, *a, **k))
    )
    Kept(tmp_path).log_figure(figure, "figures/empty.png", ("stage", None))
    contents = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert contents.keys() == {"stage-empty.png", "None-empty.png"}
    assert len(drawn) == len(set(contents.values())) == 1
    assert contents["None-empty.png"].startswith(b"\x89PNG")
