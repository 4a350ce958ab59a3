"""How plots look, wherever they end up; matplotlib comes when the first one is drawn."""

import io
import re
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
COLORS = ("#2f6db3", "#d9762b", "#3c9a5f", "#b5404f", "#7d5fb2", "#8a6a4f", "#c65fa6", "#6c7680")
"""Colours that follow each other; a ninth line starts anew with another dash."""
DASHES = ("-", "--", ":", "-.")
_STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.dpi": 110,
}


def styled(draw: Callable[P, "Figure"]) -> Callable[P, "Figure"]:
    """Lets a function draw in our style, and leaves matplotlib's settings as they were."""

    @wraps(draw)
    def draw_in_style(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return draw_in_style


def panels(number: int, height: float = 3.2, width: float = 4.6) -> tuple["Figure", list["Axes"]]:
    """A figure with panels side by side; it knows no window and no global state.

    Args:
        number: How many panels.
        height: Height in inches.
        width: Width of each panel in inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * number, height), layout="constrained")
    return figure, list(figure.subplots(1, number, squeeze=False)[0])


def line_style(position: int) -> dict[str, Any]:
    """Colour and dash of the line at a position, so that neighbours differ."""
    dash = DASHES[position // len(COLORS) % len(DASHES)]
    return {"color": COLORS[position % len(COLORS)], "linestyle": dash}


def bars(axes: "Axes", labels: Sequence[str], heights: Sequence[float], position: int = 0) -> None:
    """Bars with their labels below."""
    places = range(len(labels))
    axes.bar(places, heights, color=COLORS[position % len(COLORS)], width=0.8)
    axes.set_xticks(places, labels)


def to_svg(figure: "Figure", description: str) -> str:
    """The figure as an element for an HTML page, described for who cannot see it."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "egra_dist", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    element = file.getvalue()[file.getvalue().index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    return element.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)
