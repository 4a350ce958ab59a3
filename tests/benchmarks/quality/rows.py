"""Rows of what has been measured: those of a model, and their figures over seeds."""

import numpy as np

from tests.benchmarks.quality.experiments import MODELS
from tests.benchmarks.quality.plan import METRIC


def collect(plan, data, measured):
    """Final rows of every model and loss, by seed."""
    finals = {}
    for model, kind in MODELS.items():
        for loss in kind.losses:
            trials = plan.finals(data, model, loss)
            rows = [measured[trial.digest] for trial in trials if trial.digest in measured]
            if rows:
                finals[model, loss] = rows
    return finals


def better_loss(finals, model):
    """The loss with the better mean validation score."""
    losses = [loss for name, loss in finals if name == model]
    return max(losses, key=lambda loss: np.mean(values(finals[model, loss], "valid", METRIC)))


def better_settings(plan, data, model, measured):
    """A model's rows with the settings of best mean validation score; none before a search ends.

    They are those that its search chose for either loss, and the published ones.
    """
    known = [plan.finals(data, model, loss) for loss in MODELS[model].losses]
    if not all(known):
        return []
    every = [
        [measured[trial.digest] for trial in trials if trial.digest in measured]
        for trials in [*known, plan.published(data, model)]
    ]
    every = [rows for rows in every if rows]
    return max(every, key=lambda rows: np.mean(values(rows, "valid", METRIC)), default=[])


def best_of(models):
    """The name of the model with the best mean validation score, of rows by model."""
    return max(models, key=lambda model: values(models[model], "valid", METRIC).mean())


def values(rows, split, metric):
    """One figure per seed."""
    return np.array([row[split]["metrics"][metric] for row in rows])


def spread(numbers):
    """Mean and standard deviation over seeds, as text."""
    deviation = f" ± {numbers.std(ddof=1):.4f}" if len(numbers) > 1 else ""
    return f"{numbers.mean():.4f}{deviation}"
