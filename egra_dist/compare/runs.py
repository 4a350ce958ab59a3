"""What is compared of a run: its settings, figures, curves and cost."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from egra_dist.compare.find import FoundRun
from egra_dist.tracking.reader import RecordedRun
from egra_dist.tracking.spool import Value

SEED = "seed"
STRENGTH = "alignment/lambda"
QUANTILES = tuple(f"alignment/item_weight_{name}" for name in ("p10", "p50", "p90"))
_MAIN = "train"
_HEADLINES = ("recall_at_20", "ndcg_at_20", "recall_at_10", "ndcg_at_10")
_NOT_COMPARED = ("tracking.", "cluster.kubernetes.", "cluster.environment.")
_SLICES = "slices/"


@dataclass(frozen=True)
class ComparedRun:
    """One run.

    Attributes:
        name: Its name.
        run_id: MLflow's id.
        seed: Its seed; empty when it was not recorded.
        settings: Settings by dotted name, with the data set's digest; none that only says where
            something is recorded.
        metrics: ``valid/...`` and ``test/...`` of the best validation state.
        slices: ``slices/...`` of the test split.
        series: Curves of the main training by metric.
        cost: Seconds, speed and memory, by what they are.
        metric: The metric that selects the best state.
    """

    name: str
    run_id: str
    seed: str
    settings: dict[str, str]
    metrics: dict[str, float]
    slices: dict[str, float]
    series: dict[str, list[Value]] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    metric: str = _HEADLINES[0]


def read_run(found: FoundRun) -> ComparedRun:
    """Reads what is compared of a run; of one that was not trained there are no curves."""
    parent, training = found.parent, found.stages.get(_MAIN)
    metric = parent.params.get(f"{_MAIN}.metric", _HEADLINES[0])
    series = _read_series(found, metric)
    best = _best_values(series, metric)
    recorded = {f"{split}/{name}" for split in ("valid", "test") for name in (metric, *_HEADLINES)}
    final = {name: value for name, value in parent.metrics.items() if name in recorded}
    return ComparedRun(
        name=parent.name,
        run_id=parent.run_id,
        seed=parent.params.get(SEED, parent.tags.get(SEED, "")),
        settings=_settings(parent),
        metrics={**final, **best},  # of a run that was not evaluated the last value is no final one
        slices={k: v for k, v in parent.metrics.items() if k.startswith(_SLICES)},
        series=series,
        cost=_cost(parent, training, series),
        metric=metric,
    )


def _settings(run: RecordedRun) -> dict[str, str]:
    kept = {k: v for k, v in run.params.items() if not k.startswith(_NOT_COMPARED)}
    kept.pop(SEED, None)
    named: dict[str, str] = {
        name: run.tags[name] for name in ("dataset", "dataset_digest") if name in run.tags
    }
    return {**named, **kept}


def _read_series(found: FoundRun, metric: str) -> dict[str, list[Value]]:
    training = found.stages.get(_MAIN)
    if training is None:
        return {}
    validation = (f"valid/{name}" for name in dict.fromkeys((metric, *_HEADLINES)))
    wanted = (STRENGTH, *QUANTILES, *validation, "train/loss_total", "train/triplets_per_second")
    names = [name for name in wanted if name in training.metrics]
    return {name: found.records.series(training.run_id, name) for name in names}


def _best_values(series: Mapping[str, Sequence[Value]], metric: str) -> dict[str, float]:
    """Every validation metric at the step where the selecting one was best."""
    scores = series.get(f"valid/{metric}", [])
    if not scores:
        return {}
    step = max(scores, key=lambda point: point.value).step
    at_step = {name: dict(points) for name, points in series.items() if name.startswith("valid/")}
    return {name: values[step] for name, values in at_step.items() if step in values}


def _cost(
    parent: RecordedRun, training: RecordedRun | None, series: Mapping[str, Sequence[Value]]
) -> dict[str, float]:
    cost = {"run s": parent.seconds} if parent.seconds is not None else {}
    if training is None:
        return cost
    if training.seconds is not None:
        cost["training s"] = training.seconds
    if "train/epoch" in training.metrics:
        cost["epochs"] = training.metrics["train/epoch"]
    speeds = [point.value for point in series.get("train/triplets_per_second", [])]
    if speeds:
        cost["triplets/s"] = statistics.median(speeds)
    peaks = {"peak GiB": "process", "peak GPU GiB": "gpu"}
    names = {title: f"system/{what}_peak_memory_gib" for title, what in peaks.items()}
    return cost | {t: training.metrics[n] for t, n in names.items() if n in training.metrics}
