"""Writes ``docs/results.md`` from what has been measured."""

from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

from tests.benchmarks.quality.experiments import (
    DATA_SETS,
    MODELS,
    PRETRAINED,
    PUBLISHED,
    TOOLKIT,
    UNIFORM_AND_CONSTANT,
    VARIANTS,
)
from tests.benchmarks.quality.histories import history_table
from tests.benchmarks.quality.plan import METRIC, Plan
from tests.benchmarks.quality.rows import best_of, better_loss, collect, spread, values
from tests.benchmarks.quality.summary import summary

COLUMNS = ("recall_at_10", "recall_at_20", "ndcg_at_10", "ndcg_at_20")
SLICES = ("head", "torso", "tail", "cold")
BASE = "as above"
PARTS = (
    "no item graph",
    "item graph in the modality branch alone",
    UNIFORM_AND_CONSTANT,
    "no alignment",
)
TEMPLATE = Path(__file__).with_name("results.template.md")


def write_tables(measured, path):
    """Replaces the document."""
    sections = [summary(measured), *(section(data, measured) for data in DATA_SETS)]
    path.write_text(
        TEMPLATE.read_text().replace("{sections}", "\n\n".join(filter(None, sections))) + "\n"
    )


def section(data, measured):
    """All tables of a data set; what has not been run is left out."""
    plan = Plan(measured, [data], list(MODELS))
    finals = collect(plan, data, measured)
    if not finals:
        return ""
    better = {model: better_loss(finals, model) for model, _ in finals}
    budget = "Trials of each trained model: " + budget_of(data)
    parts = [f"## {data}", budget, main_table(finals, better), slice_table(finals, better)]
    parts.append(history_table(plan, data, measured))
    for model in VARIANTS:
        if model in better:
            parts += variant_tables(plan, data, measured, model, finals[model, better[model]])
    parts.append(published_table(plan, data, measured))
    parts.append(settings_table(plan, data, finals))
    return "\n\n".join(filter(None, parts))


def budget_of(data):
    """How many there are with each loss."""
    model, num_trials = MODELS[PRETRAINED], DATA_SETS[data]["trials"]
    drawn = {loss: sum(map(len, model.rounds(loss, num_trials, data))) for loss in model.losses}
    return ", ".join(f"{count} with {loss}" for loss, count in drawn.items()) + "."


def variant_tables(plan, data, measured, model, finals):
    """What is changed of a model, a table for each heading."""
    parts = []
    for heading, purposes in VARIANTS[model].items():
        rows = {BASE: finals}
        for purpose, changes in purposes.items():
            trials = plan.variants(data, model, {purpose: changes})
            rows[purpose] = [measured[t.digest] for t in trials if t.digest in measured]
        parts += [variant_table(rows, heading), verdict(rows)]
    return parts


def verdict(rows):
    """In words, whether taking a part of EGRA away costs quality, over the seeds in common."""
    egra = {row["seed"]: row for row in rows[BASE]}
    lines = []
    for purpose in PARTS:
        theirs = [row for row in rows.get(purpose, []) if row["seed"] in egra]
        if not theirs:
            continue
        ours = [egra[row["seed"]] for row in theirs]
        gains = values(theirs, "test", METRIC) / values(ours, "test", METRIC) - 1
        change = np.mean(values(theirs, "test", METRIC)) / np.mean(values(ours, "test", METRIC)) - 1
        costs = f"costs {-change:.1%}" if change < 0 else f"costs nothing ({change:+.1%})"
        every = "on every seed" if len(set(np.sign(gains))) == 1 else "not on every seed"
        lines.append(f"* {purpose}: {costs} of test Recall@20, {every} ({len(theirs)} in common).")
    return "\n".join(["In words, over the seeds in common:", "", *lines]) if lines else ""


def main_table(finals, better):
    known = {model: finals[model, better[model]] for model in VARIANTS if model in better}
    name = best_of(known) if known else "egra"
    reference = known.get(name)
    lines = [
        "| model | loss | seeds | "
        + " | ".join(f"test {title(column)}" for column in COLUMNS)
        + f" | valid R@20 | {name}'s R@20 is | p |",
        "|" + "---|" * (len(COLUMNS) + 6),
    ]
    ordered = sorted(finals.items(), key=lambda entry: values(entry[1], "test", METRIC).mean())
    for (model, loss), rows in ordered:
        is_compared = all((model, other) in finals for other in MODELS[model].losses)
        name = f"**{model}**" if is_compared and better[model] == loss else model
        figures = [spread(values(rows, "test", column)) for column in COLUMNS]
        figures.append(spread(values(rows, "valid", METRIC)))
        against = ["", ""] if rows is reference or not reference else compare(reference, rows)
        shown = loss if MODELS[model].losses[0] else ""
        lines.append("| " + " | ".join([name, shown, str(len(rows)), *figures, *against]) + " |")
    return "\n".join(lines)


def compare(reference, rows):
    """Relative gain of the reference, and the p of a t-test over seeds."""
    ours, theirs = (values(part, "test", METRIC) for part in (reference, rows))
    gain = f"{100 * (ours.mean() / theirs.mean() - 1):+.1f} %"
    if len(ours) < 2:
        return [gain, ""]
    if len(theirs) < 2:
        return [gain, f"{stats.ttest_1samp(ours, theirs[0]).pvalue:.1g}"]
    return [gain, f"{stats.ttest_ind(ours, theirs, equal_var=False).pvalue:.1g}"]


def slice_table(finals, better):
    lines = [
        "Test Recall@20 for items by popularity (each with its better loss):",
        "",
        "| model | " + " | ".join(SLICES) + " |",
        "|" + "---|" * (len(SLICES) + 1),
    ]
    for model, loss in better.items():
        rows = finals[model, loss]
        figures = [
            np.mean([row["test"]["slices"].get(name, {}).get(METRIC, np.nan) for row in rows])
            for name in SLICES
        ]
        lines.append("| " + " | ".join([model, *(f"{figure:.4f}" for figure in figures)]) + " |")
    return "\n".join(lines)


def variant_table(rows, heading):
    known = {name: part for name, part in rows.items() if part}
    if len(known) < 2:
        return ""
    base = known[BASE]
    lines = [
        f"{heading}:",
        "",
        "| | seeds | test R@20 | test N@20 | valid R@20 | R@20 against that | p |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, part in known.items():
        figures = [spread(values(part, "test", c)) for c in ("recall_at_20", "ndcg_at_20")]
        figures.append(spread(values(part, "valid", METRIC)))
        against = ["", ""] if part is base else compare(part, base)
        lines.append("| " + " | ".join([name, str(len(part)), *figures, *against]) + " |")
    return "\n".join(lines)


def published_table(plan, data, measured):
    """This engine with the papers' settings beside the common toolkit."""
    lines = [
        "Published settings, of EGRA the defaults (BPR, nothing searched), and the common "
        "toolkit on the same files:",
        "",
        "| model | seeds | test R@20 | test N@20 | toolkit's R@20 | toolkit's N@20 |",
        "|---|---|---|---|---|---|",
    ]
    for model in PUBLISHED:
        trials = plan.published(data, model)
        rows = [measured[trial.digest] for trial in trials if trial.digest in measured]
        if rows:
            figures = [spread(values(rows, "test", c)) for c in ("recall_at_20", "ndcg_at_20")]
            theirs = [f"{figure:.4f}" for figure in TOOLKIT[data].get(model, ())] or ["", ""]
            lines.append("| " + " | ".join([model, str(len(rows)), *figures, *theirs]) + " |")
    return "\n".join(lines) if len(lines) > 4 else ""


def settings_table(plan, data, finals):
    """What the searches chose, less what all trials share."""
    chosen = defaultdict(list)
    for model, loss in finals:
        best = plan.best(data, model, [loss])
        chosen[model].append((loss, best.settings))
    lines = ["<details><summary>Settings that the searches chose</summary>", ""]
    for model, entries in chosen.items():
        for loss, settings in entries:
            own = {k: v for k, v in settings.items() if not k.startswith("pretrain.")}
            text = " ".join(f"`{key}={value}`" for key, value in sorted(own.items()))
            lines.append(f"* {model} {loss if MODELS[model].losses[0] else ''}: {text or 'none'}")
    return "\n".join([*lines, "", "</details>"])


def title(column):
    name, _, cutoff = column.partition("_at_")
    return f"{name[0].upper()}@{cutoff}"
