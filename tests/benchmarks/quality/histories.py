"""What the order of users' choices is worth, to every model alike."""

from collections import Counter

import numpy as np

from tests.benchmarks.quality.experiments import MODELS, VARIANTS
from tests.benchmarks.quality.plan import METRIC
from tests.benchmarks.quality.rows import best_of, spread, values

NDCG = "ndcg_at_20"
WORDS = """With the latest items of users (`history`, [method.md](method.md#latest-items)), each
model with the loss that its search found better. Share and decay are chosen on validation, of the
same candidates for all, for vectors that were trained as above:"""


def collect_histories(plan, data, measured):
    """Rows by model, beside those of the same seeds without histories."""
    known = {}
    for model in MODELS:
        pairs = []
        for trial in plan.histories(data, model):
            plain = plan.finals(data, model, trial.loss)[trial.seed]
            if trial.digest in measured and plain.digest in measured:
                pairs.append((measured[trial.digest], measured[plain.digest]))
        if pairs:
            known[model] = [list(rows) for rows in zip(*pairs, strict=True)]
    return known


def history_table(plan, data, measured):
    """A line for each model; nothing where no order is known."""
    known = collect_histories(plan, data, measured)
    if not known:
        return ""
    lines = [
        WORDS,
        "",
        "| model | loss | seeds | share, decay | test R@20 | test N@20 | valid R@20 | test R@20 "
        "without |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, (rows, plain) in sorted(known.items(), key=lambda entry: _mean(entry[1][0])):
        figures = [spread(values(rows, "test", column)) for column in (METRIC, NDCG)]
        figures.append(spread(values(rows, "valid", METRIC)))
        figures.append(spread(values(plain, "test", METRIC)))
        cells = [model, rows[0]["loss"], str(len(rows)), _chosen(rows), *figures]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def history_cells(plan, data, measured):
    """EGRA and the best of the others, with histories."""
    known = {name: rows for name, (rows, _) in collect_histories(plan, data, measured).items()}
    ours = {name: rows for name, rows in known.items() if name in VARIANTS}
    others = {name: rows for name, rows in known.items() if name not in VARIANTS}
    if not ours or not others:
        return ["not run"] * 2 if plan.histories(data, "mgcn") else ["no order known"] * 2
    best = {metric: max(others, key=lambda name: _mean(others[name], metric)) for metric in _BOTH}
    name = best_of(ours)
    return [
        f"{name}: {_mean(ours[name]):.4f} / {_mean(ours[name], NDCG):.4f}{_seeds(ours[name])}",
        " / ".join(
            f"{model}: {_mean(others[model], by):.4f}{_seeds(others[model])}"
            for by, model in best.items()
        ),
    ]


_BOTH = (METRIC, NDCG)


def _mean(rows, metric=METRIC):
    return np.mean(values(rows, "test", metric))


def _seeds(rows):
    return " (one seed)" if len(rows) == 1 else ""


def _chosen(rows):
    """Shares and decays that were taken, the most frequent first."""
    counts = Counter((row["history"]["share"], row["history"]["decay"]) for row in rows)
    return "; ".join(f"{share:g}, {decay:g}" for (share, decay), _ in counts.most_common())
