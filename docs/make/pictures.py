"""Draws ``docs/images`` with the code that is shown: ``python -m docs.make.pictures``.

``--run FOLDER`` first takes the series of the last picture from a run of ``egra-dist demo`` into
``demo.json`` beside this file. A test compares the pictures with what this would draw.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from docs.make.svg import GREY, INK, ORANGE, TEAL, VIOLET, Axes, Picture
from egra_dist.config import STAGES, AlignmentSettings
from egra_dist.config.losses import RAMPS
from egra_dist.graph.behavior import merge
from egra_dist.graph.csr import Csr
from egra_dist.model.alignment import entity_weights, strength

IMAGES = Path(__file__).parent.parent / "images"
SERIES = Path(__file__).parent / "demo.json"

LEAVES = {
    "catalogue": "who, what, features",
    "features": "if centred, cut, ...",
    "graphs": "R, its graph, S_m",
    "pretrain": "MGCN's item vectors",
    "knn": "nearest items",
    "merge": "behaviour graph",
    "train": "EGRA's vectors",
    "evaluate": "metrics.json",
    "export": "Parquet, raw ids",
}
INPUTS = {
    "features": ("catalogue",),
    "graphs": ("features",),
    "pretrain": ("graphs",),
    "knn": ("pretrain",),
    "merge": ("knn", "graphs"),
    "train": ("merge",),
    "evaluate": ("train",),
    "export": ("train",),
}
"""What each stage is made from, beside the catalogue; a test compares it with a run's manifests."""
_PLACES = {
    "catalogue": (0, 0), "features": (1, 0), "graphs": (2, 0), "pretrain": (3, 0), "knn": (4, 0),
    "merge": (2, 1), "train": (3, 1), "evaluate": (4, 1), "export": (4, 2),
}  # fmt: skip
_USERS = {"u1": (0, 1), "u2": (1, 2), "u3": (2, 3), "u4": (4,)}
_NUM_ITEMS = 6
_ITEM_EDGES = ((0, 4), (3, 4), (1, 5))
_BETA = 0.5


def pictures() -> dict[str, str]:
    """Every picture by the name of its file."""
    return {
        "pipeline.svg": str(pipeline()),
        "merged-graph.svg": str(merged_graph()),
        "weights.svg": str(weights()),
        "training.svg": str(training(json.loads(SERIES.read_text()))),
    }


def pipeline() -> Picture:
    """The stages, and what each is made from."""
    picture = Picture(960, 330, "The stages of the pipeline and what each is made from")
    size = (156.0, 58.0)

    def corner(name: str) -> tuple[float, float]:
        column, row = _PLACES[name]
        return 24 + 188.0 * column, 30 + 106.0 * row

    for name, sources in INPUTS.items():
        for source in sources:
            (x, y), (a, b) = corner(source), corner(name)
            if y == b:
                line = [(x + size[0], y + 29), (a - 2, b + 29)]
            elif x == a:
                line = [(x + 78, y + size[1]), (a + 78, b - 2)]
            else:
                middle = y + size[1] + 24
                line = [(x + 78, y + size[1]), (x + 78, middle), (a + 78, middle), (a + 78, b - 2)]
            if source == "train" and name == "export":
                line = [(x + 78, y + size[1]), (x + 78, b + 29), (a - 2, b + 29)]
            picture.path(line, GREY, 2, end="arrow")
    for name in ("catalogue", *STAGES):
        color = GREY if name == "catalogue" else ORANGE if name in ("pretrain", "train") else TEAL
        picture.box(corner(name), size, color, name, LEAVES[name])
    picture.text((24, 266), "grey: what you bring", size=12, anchor="start")
    picture.text((24, 286), "orange: trainings, on all workers", size=12, anchor="start")
    picture.text((24, 306), "a box is a folder, whole or absent", size=12, anchor="start")
    return picture


def merged_graph() -> Picture:
    """Normalised entries of the graph of behaviour, before and after item edges are merged."""
    picture = Picture(960, 400, "The behaviour graph without and with edges between items")
    for left, title, beta in (
        (40, "interactions alone: LightGCN, MGCN", 0),
        (520, "merged: EGRA", _BETA),
    ):
        picture.text((left, 36), title, anchor="start", weight="600")
        entries = _entries(beta)
        users = {n: (left + 50.0, 84.0 + 76 * n) for n in range(len(_USERS))}
        items = {n: (left + 250.0, 68.0 + 54 * n) for n in range(_NUM_ITEMS)}
        for (row, column), value in entries.items():
            first, second = row, column - len(_USERS)
            if row < len(_USERS):
                picture.path([users[first], items[second]], TEAL, 7 * value)
            elif row < column:
                start, end = items[row - len(_USERS)], items[second]
                away = (start[0] + 60 + abs(end[1] - start[1]) / 2.2, (start[1] + end[1]) / 2)
                picture.curve(start, away, end, ORANGE, 7 * value)
        for n, name in enumerate(_USERS):
            picture.disc(users[n], 17, TEAL, name)
        for n, at in items.items():
            picture.disc(at, 17, ORANGE, f"i{n + 1}")
    words = "Width: the entry of N(A). An edge between items counts"
    words += f" beta = {_BETA}; i6, which nobody has touched, is reached through i2."
    picture.text((40, 386), words, size=12, anchor="start")
    return picture


def _entries(beta: float) -> dict[tuple[int, int], float]:
    """Of ``N(A)``, by row and column; computed by the package."""
    lists = [list(items) for items in _USERS.values()]
    starts = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    training = Csr(starts, np.concatenate(lists).astype(np.int32), None, _NUM_ITEMS)
    both = sorted({pair for a, b in _ITEM_EDGES for pair in ((a, b), (b, a))})
    counts = np.bincount([row for row, _ in both], minlength=_NUM_ITEMS)
    columns = np.array([column for _, column in both], np.int32)
    items = Csr(np.cumsum([0, *counts]).astype(np.int64), columns, None, _NUM_ITEMS)
    graph = merge(training, items, beta)
    rows = np.repeat(np.arange(graph.num_rows), np.diff(graph.indptr))
    assert graph.values is not None
    return {
        (int(row), int(column)): float(value)
        for row, column, value in zip(rows, graph.indices, graph.values, strict=True)
    }


def weights() -> Picture:
    """Both levels: who counts how much, and how strongly all of it counts."""
    picture = Picture(960, 360, "Weights by alignment degree, and the strength over the steps")
    degrees = torch.linspace(-0.2, 1, 61)
    axes = Axes(picture, (60, 60), (340, 230), (-0.2, 1), (0, 3))
    axes.frame(
        "Level 1: weight of an entity",
        "alignment degree a = cos(Side, H)",
        (-0.2, 0, 0.5, 1),
        (0, 1, 2, 3),
    )
    for focus, temperature, color, dash in (
        ("hard", 0.5, ORANGE, ""), ("hard", 2, ORANGE, "5 5"), ("easy", 0.5, TEAL, ""),
        ("easy", 2, TEAL, "5 5"), ("uniform", 1, GREY, ""),
    ):  # fmt: skip
        settings = AlignmentSettings(focus=focus, focus_temperature=temperature)
        values = entity_weights(degrees, settings).tolist()
        axes.line(list(zip(degrees.tolist(), values, strict=True)), color, dash=dash)
    axes.label(-0.15, 2.85, "hard: the less aligned", ORANGE)
    axes.label(0.95, 2.85, "easy: the more aligned", TEAL, "end")
    axes.label(-0.15, 0.12, "full line: T = 0.5, dashed: T = 2, grey: uniform", INK)
    axes = Axes(picture, (500, 60), (340, 230), (0, 100), (0, 0.02))
    axes.frame(
        "Level 2: strength of the alignment loss",
        "step",
        (0, 25, 50, 75, 100),
        (0, 0.005, 0.01, 0.015, 0.02),
    )
    colors = dict(zip(RAMPS, (GREY, TEAL, VIOLET, ORANGE, INK), strict=True))
    for ramp, color in colors.items():
        settings = AlignmentSettings(ramp=ramp, ramp_steps=80, lambda_max=0.02)
        axes.line([(step, strength(step, settings)) for step in range(101)], color)
    for place, (ramp, color) in enumerate(colors.items()):
        picture.path([(860, 70 + 22 * place), (876, 70 + 22 * place)], color)
        picture.text((882, 74 + 22 * place), ramp, size=12, anchor="start")
    return picture


def training(series: dict[str, Any]) -> Picture:
    """EGRA's training in the demo."""
    picture = Picture(960, 330, "Strength, weights and validation recall of the demo's training")
    last = max(step for step, _ in series["recall"])
    axes = Axes(picture, (60, 60), (220, 200), (0, last), (0, 0.02))
    steps = (0, 500, 1000, 1500)
    axes.frame("lambda", "step", steps, (0, 0.01, 0.02))
    axes.line(series["lambda"], ORANGE)
    axes = Axes(picture, (380, 60), (220, 200), (0, last), (0.94, 1.08))
    axes.frame("weights: 10 % to 90 %, median", "step", steps, (0.94, 0.98, 1.02, 1.06))
    for entity, color in (("user", TEAL), ("item", VIOLET)):
        low, middle, high = (dict(series[f"{entity}_{name}"]) for name in ("p10", "p50", "p90"))
        axes.band([(step, low[step], high[step]) for step in middle], color)
        axes.line(list(middle.items()), color)
    axes.label(last * 0.98, 1.026, "users", TEAL, "end")
    axes.label(last * 0.98, 1.066, "items", VIOLET, "end")
    axes = Axes(picture, (700, 60), (220, 200), (0, last), (0.15, 0.2))
    axes.frame("validation Recall@20", "step", steps, (0.15, 0.175, 0.2))
    axes.line(series["recall"], TEAL)
    return picture


def read_run(folder: Path) -> dict[str, Any]:
    """The series of the training of a demo, as MLflow has them."""
    from egra_dist.tracking.reader import Records

    records = Records(f"sqlite:///{folder.resolve()}/mlflow.db")
    (parent,) = [run for run in records.runs("egra") if run.parent_id is None]
    run_id = records.children(parent)["train"].run_id
    names = {"lambda": "alignment/lambda", "recall": "valid/recall_at_20"}
    for entity in ("user", "item"):
        for quantile in ("p10", "p50", "p90"):
            names[f"{entity}_{quantile}"] = f"alignment/{entity}_weight_{quantile}"
    return {
        short: [[point.step, round(point.value, 5)] for point in records.series(run_id, name)]
        for short, name in names.items()
    }


def main() -> None:
    """Draws them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="run folder of a demo to take the series from")
    options = parser.parse_args()
    if options.run:
        SERIES.write_text(json.dumps(read_run(options.run)) + "\n")
    for name, text in pictures().items():
        (IMAGES / name).write_text(text)


if __name__ == "__main__":
    main()
