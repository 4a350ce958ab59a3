"""Runs as MLflow would have them after trainings that never were: known figures, quickly made."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from egra_dist.tracking.experiment import Experiment
from egra_dist.tracking.recorder import MetricRecorder

METRICS = ("recall_at_20", "ndcg_at_20", "recall_at_10", "ndcg_at_10")
SLICES = ("head", "torso", "tail")


def record_run(
    uri: str,
    folder: Path,
    settings: Mapping[str, Any],
    best: float,
    tags: Mapping[str, str] | None = None,
    steps: int = 40,
    with_test: bool = True,
) -> str:
    """Records a run whose best validation recall is ``best``, reached in the middle of training.

    Args:
        uri: Tracking URI.
        folder: Run folder.
        settings: Nested settings of the run.
        best: Best ``valid/recall_at_20``; ``test/recall_at_20`` is 0.9 of it.
        tags: Tags of the run.
        steps: Steps of the training; an evaluation every tenth.
        with_test: Whether it was evaluated on the test split.

    Returns:
        The run's id.
    """
    with Experiment.open(uri, folder, "egra", params=settings, tags=tags) as experiment:
        with experiment.stage("train", settings.get("train"), _own(tags)) as run_id:
            recorder = MetricRecorder(uri, run_id, experiment.spool, system_seconds=None)
            for step in range(steps):
                recorder.log(step, _at(step, steps, settings, best))
            assert recorder.close(timeout=60)
            experiment.copy_metrics(run_id, {"alignment/lambda", "valid/recall_at_20"})
        if with_test:
            experiment.log_metrics({f"test/{name}": 0.9 * best for name in METRICS})
            sizes = {name: 0.5 * best + 0.01 * i for i, name in enumerate(SLICES)}
            experiment.log_metrics({f"slices/{n}/recall_at_20": v for n, v in sizes.items()})
        return experiment.run_id


def _own(tags: Mapping[str, str] | None) -> dict[str, str]:
    return {k: v for k, v in (tags or {}).items() if not k.startswith("mlflow.") and k != "trial"}


def _at(step: int, steps: int, settings: Mapping[str, Any], best: float) -> dict[str, float]:
    """What a training records at a step."""
    most = settings["train"]["alignment"]["lambda_max"]
    metrics = {
        "alignment/lambda": most * min(1.0, 2 * step / steps),
        "train/loss_total": math.exp(-step / steps),
    }
    if step % 10 == 0:
        score = best - abs(step - steps // 20 * 10) * 1e-4
        metrics |= {f"valid/{name}": score for name in METRICS}
        metrics |= {f"alignment/item_weight_{q}": 1 + step / steps for q in ("p10", "p50", "p90")}
        metrics |= {
            "train/epoch": step // 10 + 1,
            "train/triplets_per_second": 1000.0 + step,
            "system/process_peak_memory_gib": 1.5,
        }
    return metrics


def record_sweep(uri: str, folder: Path, trials: list[tuple[dict[str, Any], float]], **how: Any):
    """Records a search of trials: their settings, and their best validation recall."""
    with Experiment.open(uri, folder, "egra", tags={"sweep": folder.name}) as experiment:
        tags = {"sweep": folder.name, **experiment.tags_of_nested_runs, "trial": "finished"}
        for number, (settings, best) in enumerate(trials):
            place = folder / "trials" / f"{number:04d}"
            record_run(uri, place, settings, best, tags, **how)
        return experiment.run_id
