"""The comparison as plots: curves overlaid, figures by group, slices."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from egra_dist.compare.groups import Group, metrics_of, summarize
from egra_dist.compare.runs import QUANTILES, STRENGTH
from egra_dist.compare.tables import slices_of
from egra_dist.tracking.plots import line_style, panels, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_IN_LEGEND = 16


def all_plots(groups: Sequence[Group]) -> dict[str, "Figure"]:
    """Every plot that has something to show, by its caption."""
    runs = [run for group in groups for run in group.runs]
    plots = {}
    if any(run.series.get(STRENGTH) for run in runs):
        plots["Alignment schedules, and validation over them"] = draw_schedules(groups)
    if any(run.series.get(QUANTILES[0]) for run in runs):
        plots["Weights of items: 10th, 50th and 90th percentile"] = draw_weights(groups)
    if metrics_of(groups):
        plots["Each seed, and the mean of each group"] = draw_seeds(groups)
    if slices_of(groups):
        plots["Slices of the test split: recall_at_20"] = draw_slices(groups)
    return plots


@styled
def draw_schedules(groups: Sequence[Group]) -> "Figure":
    """Strength of the alignment, and the selecting validation metric, by step; a line per run."""
    metric = groups[0].runs[0].metric
    figure, axes = panels(2, width=5.2)
    _draw_curves(axes[0], groups, STRENGTH)
    axes[0].set(xlabel="step", ylabel="alignment strength", ylim=(0, None))
    _draw_curves(axes[1], groups, f"valid/{metric}")
    axes[1].set(xlabel="step", ylabel=f"validation {metric}")
    if len(groups) <= _MAX_IN_LEGEND:
        handles, labels = axes[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", title="group")
    return figure


@styled
def draw_weights(groups: Sequence[Group]) -> "Figure":
    """Percentiles of the items' weights by step; a panel for each."""
    figure, axes = panels(len(QUANTILES), width=3.6, height=2.8)
    for panel, name in zip(axes, QUANTILES, strict=True):
        _draw_curves(panel, groups, name)
        panel.set(title=name.rpartition("_")[2], xlabel="step", ylabel="entity weight")
    return figure


def _draw_curves(axes: "Axes", groups: Sequence[Group], metric: str) -> None:
    for position, group in enumerate(groups):
        label: str | None = group.label
        for run in group.runs:
            points = run.series.get(metric, [])
            steps, values = [p.step for p in points], [p.value for p in points]
            axes.plot(steps, values, label=label, alpha=0.75, linewidth=1.3, **line_style(position))
            label = None


@styled
def draw_seeds(groups: Sequence[Group]) -> "Figure":
    """Each run's figure, and the mean of its group: of one metric per split."""
    metrics = metrics_of(groups)
    chosen = {metric.partition("/")[0]: metric for metric in reversed(metrics)}.values()
    figure, axes = panels(len(chosen), width=5.2, height=2.8)
    for panel, metric in zip(axes, reversed(list(chosen)), strict=True):
        for position, group in enumerate(groups):
            color = line_style(position)["color"]
            values = list(group.by_seed(metric).values())
            panel.plot([position] * len(values), values, "o", color=color, alpha=0.6, markersize=5)
            summary = summarize(group, metric)
            if summary:
                panel.plot([position], [summary.mean], "_", color=color, markersize=22, mew=2)
        panel.set_xticks(range(len(groups)), [group.label for group in groups])
        panel.set(ylabel=metric, xlim=(-0.6, len(groups) - 0.4))
    return figure


@styled
def draw_slices(groups: Sequence[Group]) -> "Figure":
    """Mean recall of each slice, bars of the groups side by side."""
    names = slices_of(groups)
    figure, (axes,) = panels(1, width=10.4, height=2.8)
    width = 0.8 / len(groups)
    for position, group in enumerate(groups):
        found = [summarize(group, f"slices/{name}/recall_at_20") for name in names]
        places = [place - 0.4 + (position + 0.5) * width for place in range(len(names))]
        heights = [summary.mean if summary else 0.0 for summary in found]
        color = line_style(position)["color"]
        axes.bar(places, heights, width, color=color, label=group.label)
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel="recall_at_20")
    if len(groups) <= _MAX_IN_LEGEND:
        axes.legend(title="group", ncols=4)
    return figure
