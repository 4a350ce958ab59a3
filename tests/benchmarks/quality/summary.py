"""What ``docs/results.md`` says first: EGRA beside the others on every data set."""

import numpy as np

from tests.benchmarks.quality.experiments import (
    CORRUPTIONS,
    DATA_SETS,
    MODELS,
    REMOVED,
    VARIANTS,
)
from tests.benchmarks.quality.histories import history_cells
from tests.benchmarks.quality.plan import METRIC, Plan
from tests.benchmarks.quality.rows import best_of, better_settings, values

NDCG = "ndcg_at_20"
SPOILT = ("30% corrupted, pretrained graph", "30% corrupted, raw graph", REMOVED)
ROWS = (
    "EGRA, test R@20 / N@20",
    "best of the others on test",
    "EGRA's R@20 / N@20 against them",
    "against MGCN",
    "against LightGCN",
    "against MGCN, head items",
    "against MGCN, tail items",
    "EGRA with users' latest items, R@20 / N@20",
    "best of the others with users' latest items",
    "R@20 kept with 30% of modality rows corrupted",
    "the same with the item graph of raw features",
    "the same with those rows taken away instead",
)
HEADING = """## In short

Each model with its better settings by mean validation Recall@20: what its search chose for either
loss, or the published ones (of EGRA: the defaults); of EGRA and EGRA+ the better one, by the same.
The best of the others is the one with the highest figure on test, which may be another one for
R@20 than for N@20. Means over the seeds that were run."""


def summary(measured):
    """The first section; nothing before EGRA is compared with another model."""
    columns = {data: column(data, measured) for data in DATA_SETS}
    columns = {data: cells for data, cells in columns.items() if cells}
    if not columns:
        return ""
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    lines += [[name, *(cells[name] for cells in columns.values())] for name in ROWS]
    return "\n".join([HEADING, "", *("| " + " | ".join(line) + " |" for line in lines)])


def column(data, measured):
    """The cells of a data set, by row."""
    plan = Plan(measured, [data], list(MODELS))
    models = {model: better_settings(plan, data, model, measured) for model in MODELS}
    ours = {model: rows for model, rows in models.items() if model in VARIANTS and rows}
    if not ours:
        return {}
    name = best_of(ours)
    egra = ours[name]
    others = {model: rows for model, rows in models.items() if rows and model not in VARIANTS}
    if not others:
        return {}
    best = {metric: highest(others, metric) for metric in (METRIC, NDCG)}
    cells = [
        f"{name}: {mean(egra):.4f} / {mean(egra, NDCG):.4f}",
        " / ".join(f"{model}: {mean(others[model], by):.4f}" for by, model in best.items()),
        " / ".join(gain(egra, others[model], by) for by, model in best.items()),
        *(gain(egra, others.get(model, [])) for model in ("mgcn", "lightgcn")),
        *(slice_change(egra, others.get("mgcn", []), name) for name in ("head", "tail")),
        *history_cells(plan, data, measured),
        *(kept(plan, data, measured, name, purpose) for purpose in SPOILT),
    ]
    return dict(zip(ROWS, cells, strict=True))


def mean(rows, metric=METRIC):
    return values(rows, "test", metric).mean()


def highest(models, metric):
    """The model with the highest mean on test, of rows by model."""
    return max(models, key=lambda model: mean(models[model], metric))


def gain(ours, theirs, metric=METRIC):
    """How much more than the other's, relative."""
    return f"{mean(ours, metric) / mean(theirs, metric) - 1:+.1%}" if theirs else "not run"


def slice_change(ours, theirs, name):
    """Recall@20 of some items, theirs and ours; no ratio, as theirs may be near zero."""
    if not theirs:
        return "not run"
    of_each = [
        np.mean([row["test"]["slices"][name][METRIC] for row in rows]) for rows in (ours, theirs)
    ]
    return f"{of_each[1]:.4f} to {of_each[0]:.4f}"


def kept(plan, data, measured, model, purpose):
    """The share of the clean Recall@20 that is left with spoilt rows, over the seeds in common."""
    loss = plan.best(data, model).loss
    clean = [measured.get(trial.digest) for trial in plan.finals(data, model, loss)]
    trials = plan.variants(data, model, {purpose: CORRUPTIONS[purpose]})
    pairs = [
        (measured[trial.digest], clean[trial.seed])
        for trial in trials
        if trial.digest in measured and clean[trial.seed]
    ]
    if not pairs:
        return "not run"
    spoilt, whole = ([pair[place] for pair in pairs] for place in (0, 1))
    seeds = "one seed" if len(pairs) == 1 else f"{len(pairs)} seeds"
    return f"{mean(spoilt) / mean(whole):.1%} ({seeds})"
