"""Small summaries of many values: quantiles while training, a table at the end."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from egra_dist.tracking.progress import is_terminal

if TYPE_CHECKING:
    from torch import Tensor

_QUANTILES = {"min": 0.0, "p10": 0.1, "p50": 0.5, "p90": 0.9, "max": 1.0}
_LARGEST_SORTED = 2**20


def quantiles(values: "Tensor", name: str) -> dict[str, float]:
    """Quantiles and mean of values as metrics ``<name>_p50`` and so on.

    Of more than about a million values an evenly spaced part is sorted, of at least half a million;
    the least, the greatest and the mean are always those of all.

    Args:
        values: Entity weights or alignment degrees, ``[num_values]``.
        name: What they are, e.g. ``"alignment/user_weight"``.

    Returns:
        ``min``, ``p10``, ``p50``, ``p90``, ``max`` and ``mean``; nothing of no values.
    """
    if not values.numel():
        return {}
    values = values.detach().flatten().float()
    part = values[:: -(-len(values) // _LARGEST_SORTED)]
    points = values.new_tensor(list(_QUANTILES.values()))
    found = dict(zip(_QUANTILES, part.quantile(points).tolist(), strict=True))
    found |= {"min": float(values.min()), "max": float(values.max()), "mean": float(values.mean())}
    return {f"{name}_{label}": value for label, value in found.items()}


def print_table(
    scores: Mapping[str, Mapping[str, float]],
    metrics: Sequence[str],
    title: str = "",
    stream: TextIO | None = None,
) -> None:
    """Prints models by metrics, the best of each column in bold; plain where not on a terminal.

    Args:
        scores: Metrics by name, by model.
        metrics: The columns; greater is better. What a model lacks is shown as a dash.
        title: Line above the table.
        stream: Where to; standard output by default.
    """
    best = {m: max((s[m] for s in scores.values() if m in s), default=None) for m in metrics}
    rows = [
        [(model, False), *(_cell(found.get(metric), best[metric]) for metric in metrics)]
        for model, found in scores.items()
    ]
    print_cells(title, ["model", *metrics], rows, stream)


def print_cells(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[tuple[str, bool]]],
    stream: TextIO | None = None,
) -> None:
    """Prints a table whose first column names the rows.

    Args:
        title: Line above the table.
        columns: Headings.
        rows: Text of each cell, and whether it is bold.
        stream: Where to; standard output by default.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    stream = stream or sys.stdout
    live = is_terminal(stream)
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(text, "bold" if is_bold else "") for text, is_bold in row))
    # Away from a terminal there is no width to fit into, and nothing is cut.
    Console(file=stream, width=None if live else 240, highlight=False).print(table)


def _cell(value: float | None, best: float | None) -> tuple[str, bool]:
    if value is None:
        return "-", False
    return f"{value:.4f}", value == best
