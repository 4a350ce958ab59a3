"""The figures of a finished run: gathered from its stages, as numbers and as a table."""

import json
from collections.abc import Mapping
from typing import Any, Literal

from egra_dist.artifact import Artifact
from egra_dist.catalog.catalog import Catalog
from egra_dist.config import MAIN, EvaluationSettings
from egra_dist.graph.csr import Csr
from egra_dist.tracking.summary import print_table
from egra_dist.train.task import Task

_COLUMNS = (
    "test recall_at_10",
    "test recall_at_20",
    "test ndcg_at_10",
    "test ndcg_at_20",
    "valid recall_at_20",
)
_PLACES = {"pretrain": 1, MAIN: 2}
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
        of the ``stages``; of a sample of users also the ``margins`` of EGRA's figures.
    """
    files = {stage: task.evaluation_file for stage, task in trained.items()}
    figures = {stage: json.loads(file.read_text()) for stage, file in files.items()}
    training = Csr.load(artifacts["graphs"].folder / "training")
    models = {"popularity": popularity_figures(catalog, training, settings)}
    for stage in sorted(trained, key=lambda stage: _PLACES.get(stage, 0)):
        splits = ("valid", "test")
        models[_name(stage, trained)] = {
            split: figures[stage][split]["metrics"] for split in splits
        }
    margins = {split: figures[MAIN][split].get("margins", {}) for split in ("valid", "test")}
    return {
        **({"margins": margins} if settings.num_users is not None else {}),
        "valid": figures[MAIN]["valid"]["metrics"],
        "test": figures[MAIN]["test"]["metrics"],
        "slices": {split: figures[MAIN][split]["slices"] for split in ("valid", "test")},
        "models": models,
        "stages": {name: artifact.seconds for name, artifact in artifacts.items()},
    }


def _name(stage: str, trained: Mapping[str, Task]) -> str:
    """What a model is called in the results: its kind, or for a baseline its own name."""
    if stage not in _PLACES:
        return stage
    names = {
        place: trained[place].settings.model.name.rpartition(":")[2]
        for place in _PLACES
        if place in trained
    }
    is_alone = len(set(names.values())) == len(names)
    return names[stage] if is_alone else f"{names[stage]} ({stage})"


def popularity_figures(
    catalog: Catalog, training: Csr, settings: EvaluationSettings
) -> dict[str, Any]:
    """The baseline that recommends to everybody the items with most training interactions.

    Args:
        catalog: What is evaluated on.
        training: ``R``, memory-mapped.
        settings: How to evaluate.
    """
    from egra_dist.evaluate.popularity import evaluate_popularity
    from egra_dist.evaluate.split import Split

    names: tuple[Literal["valid", "test"], ...] = ("valid", "test")
    figures: dict[str, Any] = {}
    for name in names:
        split = Split.from_catalog(
            catalog,
            name,
            training,
            settings.mask_valid,
            sliced=False,
            num_users=settings.num_users,
        )
        figures[name] = evaluate_popularity(split, settings).metrics
    return figures


def print_models(models: Mapping[str, Any]) -> None:
    """Prints a table of models by metrics: those of the test split, and what selected them.

    Args:
        models: Figures by model, as in ``metrics.json``.
    """
    rows = {
        model: {
            **{f"test {name}": value for name, value in figures["test"].items()},
            **{f"valid {name}": value for name, value in figures["valid"].items()},
        }
        for model, figures in models.items()
    }
    known = set().union(*rows.values())
    print_table(rows, [column for column in _COLUMNS if column in known])


def curves(metric: str) -> set[str]:
    """What a run is compared by while it trains, by the names it is recorded under.

    Args:
        metric: The validation metric that selects the best state.
    """
    weights = {f"{who}_weight_{q}" for who in ("user", "item") for q in ("p10", "p50", "p90")}
    alignment = {"lambda", "user_degree_p50", "item_degree_p50", *weights}
    return {"train/loss_total", f"valid/{metric}", *(f"alignment/{name}" for name in alignment)}


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
