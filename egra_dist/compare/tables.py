"""The comparison as tables of text, for the terminal and for the page."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from egra_dist.compare.groups import Group, compare, holm, metrics_of, summarize

METRICS = "Metrics"
_SLICE_METRIC = "recall_at_20"


class Cell(NamedTuple):
    """Text, and whether it is the best of its column."""

    text: str
    is_best: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first column names the rows.

    Attributes:
        title: What it shows.
        columns: Headings.
        rows: Cells, as many as headings.
        note: How to read it.
    """

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""


def all_tables(groups: Sequence[Group], reference: Group) -> list[Table]:
    """Every table that has something to say."""
    metrics = metrics_of(groups)
    splits = dict.fromkeys(name.partition("/")[0] for name in metrics)
    first = [next(m for m in metrics if m.startswith(f"{split}/")) for split in splits]
    tables = [settings_table(groups)]
    if len(groups) > 1:
        tables += [difference_table(groups, reference, metric) for metric in first]
    tables += [metrics_table(groups, metrics), slices_table(groups), cost_table(groups)]
    return [table for table in tables if len(table.columns) > 1]


def settings_table(groups: Sequence[Group]) -> Table:
    """Settings that differ, a row for each group."""
    names = list(dict.fromkeys(name for group in groups for name in group.settings))
    short = short_names(names)
    rows = []
    for group in groups:
        seeds = ", ".join(dict.fromkeys(run.seed for run in group.runs))
        values = [group.settings.get(name, "-") for name in names]
        rows.append([Cell(text) for text in (group.label, str(len(group.runs)), seeds, *values)])
    columns = ["group", "runs", "seeds", *(short[name] for name in names)]
    return Table("Settings that differ", columns, rows)


def difference_table(groups: Sequence[Group], reference: Group, metric: str) -> Table:
    """A metric of each group, and its difference from the reference over common seeds."""
    summaries = {group.label: summarize(group, metric) for group in groups}
    found = {g.label: compare(g, reference, metric) for g in groups if g is not reference}
    p_values = holm({label: item.p if item else None for label, item in found.items()})
    best = max((s.mean for s in summaries.values() if s), default=None)
    rows = []
    for label, summary in summaries.items():
        difference = found.get(label)
        cells = [Cell(label), _summary_cell(summary, best)]
        if difference is None:
            text = "reference" if label == reference.label else "no common seed"
            cells += [Cell(text), Cell("-"), Cell("-")]
        else:
            width = difference.half_width
            interval = f" ± {width:.4f}" if width is not None else ""
            adjusted = p_values[label]
            cells += [
                Cell(f"{difference.mean:+.4f}{interval}"),
                Cell("-" if adjusted is None else _p_value(adjusted)),
                Cell(str(difference.num_seeds)),
            ]
        rows.append(cells)
    columns = ["group", metric, f"against {reference.label}", "p", "common seeds"]
    note = (
        "Mean ± standard deviation over seeds; difference over common seeds with its 95 % interval;"
        " p of a paired two-sided t-test, adjusted for the number of groups (Holm)."
    )
    return Table(f"{metric}, seed by seed", columns, rows, note)


def metrics_table(groups: Sequence[Group], metrics: Sequence[str]) -> Table:
    """Every metric of every group."""
    rows = _by_column(
        groups, [{g.label: summarize(g, metric) for g in groups} for metric in metrics]
    )
    return Table(METRICS, ["group", *metrics], rows, "Mean ± standard deviation over seeds.")


def slices_table(groups: Sequence[Group]) -> Table:
    """Recall of the parts of the test split."""
    names = slices_of(groups)
    metrics = [f"slices/{name}/{_SLICE_METRIC}" for name in names]
    rows = _by_column(
        groups, [{g.label: summarize(g, metric) for g in groups} for metric in metrics]
    )
    return Table(f"Slices of the test split: {_SLICE_METRIC}", ["group", *names], rows)


def slices_of(groups: Iterable[Group]) -> list[str]:
    """Slices that some run has, in the order they were recorded."""
    found = dict.fromkeys(name for g in groups for run in g.runs for name in run.slices)
    parts = [name.split("/") for name in found]
    return [name for _, name, metric in parts if metric == _SLICE_METRIC]


def cost_table(groups: Sequence[Group]) -> Table:
    """What a run of each group took: means."""
    names = dict.fromkeys(name for g in groups for run in g.runs for name in run.cost)
    rows = []
    for group in groups:
        found = [[run.cost[n] for run in group.runs if n in run.cost] for n in names]
        rows.append([Cell(group.label), *(Cell(_number(values)) for values in found)])
    note = (
        "Means over runs. 'run' is from its start to its end, without stages that were done"
        " before; memory is that of one worker."
    )
    return Table("Cost", ["group", *names], rows, note)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The shortest endings of dotted names that tell them apart."""
    short = {}
    for name in names:
        parts = name.split(".")
        endings = [".".join(parts[-number:]) for number in range(1, len(parts) + 1)]
        others = [other for other in names if other != name]
        short[name] = next(
            (e for e in endings if not any(o.endswith(f".{e}") or o == e for o in others)), name
        )
    return short


def _by_column(groups: Sequence[Group], columns: Sequence[dict]) -> list[list[Cell]]:
    best = [max((s.mean for s in found.values() if s), default=None) for found in columns]
    return [
        [
            Cell(group.label),
            *(_summary_cell(f[group.label], b) for f, b in zip(columns, best, strict=True)),
        ]
        for group in groups
    ]


def _summary_cell(summary: "tuple | None", best: float | None) -> Cell:
    if summary is None:
        return Cell("-")
    _, mean, deviation = summary
    text = f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"
    return Cell(text, mean == best)


def _p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _number(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = statistics.fmean(values)
    return f"{mean:,.0f}" if mean >= 100 else f"{mean:.2f}"
