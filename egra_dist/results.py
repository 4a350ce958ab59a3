"""The figures of a finished run: gathered from its stages, as numbers and as a table."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from egra_dist.artifact import Artifact
from egra_dist.catalog.catalog import Catalog
from egra_dist.config import EvaluationSettings
from egra_dist.train.task import Task

MAIN = "train"
_SHOWN = ("recall_at_10", "recall_at_20", "ndcg_at_10", "ndcg_at_20")
_RECORDED_OF_SLICES = ("recall_at_20", "ndcg_at_20", "num_users")


def collect(
    catalog: Catalog,
    trained: Mapping[str, Task],
    artifacts: Mapping[str, Artifact],
    settings: EvaluationSettings,
) -> dict[str, Any]:
    """What goes into ``metrics.json``.

    Args:
        catalog: What was evaluated on.
        trained: Every model that was trained, by stage; each has its evaluation file.
        artifacts: Everything that was made, for the seconds it took.
        settings: How to evaluate the popularity baseline.

    Returns:
        ``valid`` and ``test`` of EGRA, its ``slices``, the same of all ``models``, and the seconds
        of the ``stages``.
    """
    files = {stage: task.evaluation_file for stage, task in trained.items()}
    figures = {stage: json.loads(file.read_text()) for stage, file in files.items()}
    names = {stage: task.settings.model.name for stage, task in trained.items()}
    models = {"popularity": popularity_figures(catalog, settings)}
    for stage in sorted(figures, key=lambda stage: stage == MAIN):
        name = names[stage] if stage in (MAIN, "pretrain") else stage
        models[name] = {split: figures[stage][split]["metrics"] for split in ("valid", "test")}
    return {
        "valid": figures[MAIN]["valid"]["metrics"],
        "test": figures[MAIN]["test"]["metrics"],
        "slices": {split: figures[MAIN][split]["slices"] for split in ("valid", "test")},
        "models": models,
        "stages": {name: artifact.seconds for name, artifact in artifacts.items()},
    }


def popularity_figures(catalog: Catalog, settings: EvaluationSettings) -> dict[str, Any]:
    """The baseline that recommends to everybody the items with most training interactions."""
    from egra_dist.evaluate.protocol import evaluate_vectors
    from egra_dist.evaluate.split import Split
    from egra_dist.graph.behavior import training_matrix

    training = training_matrix(catalog)
    popularity = np.bincount(training.indices, minlength=catalog.num_items)
    item_vectors = popularity.astype(np.float32)[:, None]
    user_vectors = np.ones((catalog.num_users, 1), dtype=np.float32)
    names: tuple[Literal["valid", "test"], ...] = ("valid", "test")
    figures: dict[str, Any] = {}
    for name in names:
        split = Split.from_catalog(catalog, name, training, settings.mask_valid, sliced=False)
        figures[name] = evaluate_vectors(split, user_vectors, item_vectors, settings).metrics
    return figures


def table(models: Mapping[str, Any], metrics: Sequence[str] = _SHOWN) -> str:
    """A table of models by test metrics, best last; the best value of each metric is starred.

    Args:
        models: Figures by model, as in ``metrics.json``.
        metrics: The columns.
    """
    from rich.console import Console
    from rich.table import Table

    test = [figures["test"] for figures in models.values()]
    shown = [name for name in metrics if all(name in figures for figures in test)]
    best = {name: max(figures[name] for figures in test) for name in shown}
    grid = Table("model", *(f"test {name}" for name in shown), "valid recall_at_20")
    for model, figures in models.items():
        cells = [
            f"{figures['test'][name]:.4f}{'*' if figures['test'][name] == best[name] else ' '}"
            for name in shown
        ]
        grid.add_row(model, *cells, f"{figures['valid'].get('recall_at_20', float('nan')):.4f}")
    console = Console(width=120)
    with console.capture() as capture:
        console.print(grid)
    return capture.get().rstrip()


def flat_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The figures of EGRA by the names they are recorded under, e.g. ``test/recall_at_20``."""
    flat = {
        f"{split}/{name}": value
        for split in ("valid", "test")
        for name, value in metrics[split].items()
    }
    for part, values in metrics["slices"]["test"].items():
        flat |= {f"slices/{part}/{n}": values[n] for n in _RECORDED_OF_SLICES if n in values}
    return flat | {f"seconds/{name}": value for name, value in metrics["stages"].items()}
