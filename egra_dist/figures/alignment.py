"""What alignment did in a training: its schedule, whom it weighted, who is aligned."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from egra_dist.tracking.plots import COLORS, panels, styled
from egra_dist.tracking.spool import Value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUM_GROUPS = 10
_NUM_BINS = 50


@styled
def draw_schedule(series: Mapping[str, Sequence[Value]], metric: str) -> "Figure":
    """The strength of the alignment loss by step, and the validation metric over it.

    Args:
        series: What was recorded by step: ``alignment/lambda`` and ``valid/<metric>``.
        metric: The metric that selected the best state.
    """
    figure, (axes,) = panels(1, height=3.4, width=6.4)
    strength = series.get("alignment/lambda", [])
    scores = series.get(f"valid/{metric}", [])
    axes.plot(*_columns(strength), color=COLORS[1], label="alignment strength")
    axes.set(xlabel="step", ylabel="alignment strength", ylim=(0, None))
    right = axes.twinx()
    right.plot(*_columns(scores), color=COLORS[0], marker=".", label=f"validation {metric}")
    right.set(ylabel=f"validation {metric}")
    right.grid(False)
    right.margins(y=0.12)
    right.spines["right"].set_visible(True)
    if scores:
        best = max(scores, key=lambda point: point.value)
        right.plot([best.step], [best.value], "o", color=COLORS[0])
        right.annotate(f"{best.value:.4f}", best, xytext=(0, 6), textcoords="offset points")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _columns(points: Sequence[Value]) -> tuple[list[int], list[float]]:
    return [point.step for point in points], [point.value for point in points]


@styled
def draw_weights(weights: Mapping[str, NDArray[np.floating]]) -> "Figure":
    """Histograms of entity weights.

    Args:
        weights: Of ``users`` and of ``items``, ``[num_entities]`` each; their mean is 1.
    """
    figure, axes = panels(len(weights))
    for position, (panel, (name, values)) in enumerate(zip(axes, weights.items(), strict=True)):
        low, high = float(values.min(initial=1.0)), float(values.max(initial=1.0))
        margin = max((high - low) * 0.02, 1e-3)
        bins = np.linspace(low - margin, high + margin, _NUM_BINS + 1).tolist()
        panel.hist(values, bins=bins, color=COLORS[position])
        panel.axvline(1.0, color="0.3", linestyle=":", linewidth=1)
        panel.set(title=f"weights of {name}", xlabel="entity weight (mean 1)", ylabel=name)
    return figure


@styled
def draw_degrees(groups: Mapping[str, tuple[Sequence[str], Sequence[float]]]) -> "Figure":
    """Mean alignment degree of each group of popularity.

    Args:
        groups: Of ``users`` and of ``items``: the groups' names and their mean degrees, as
            :func:`by_popularity` gives them.
    """
    figure, axes = panels(len(groups))
    for position, (panel, (name, (labels, means))) in enumerate(
        zip(axes, groups.items(), strict=True)
    ):
        panel.bar(range(len(labels)), means, color=COLORS[position])
        panel.set_xticks(range(len(labels)), labels, rotation=45, ha="right", fontsize=7)
        panel.set(
            title=f"alignment of {name}",
            xlabel="training interactions (a tenth of them per bar)",
            ylabel="mean cos(Side, H)",
        )
    return figure


def by_popularity(
    counts: NDArray[np.integer], degrees: NDArray[np.floating]
) -> tuple[list[str], list[float]]:
    """Mean degree of each tenth of the entities, from the least to the most popular.

    Args:
        counts: ``[num_entities]`` training interactions.
        degrees: ``[num_entities]`` alignment degrees.

    Returns:
        Least and most interactions of each group, and its mean; fewer groups of fewer entities.
    """
    order = np.argsort(counts, kind="stable")
    groups = [group for group in np.array_split(order, _NUM_GROUPS) if len(group)]
    labels = [_interval(int(counts[group[0]]), int(counts[group[-1]])) for group in groups]
    return labels, [float(degrees[group].mean()) for group in groups]


def _interval(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"
