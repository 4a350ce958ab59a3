"""The comparison as one HTML page that needs nothing else: no script, no link, plots inside."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from egra_dist.compare.tables import Table
from egra_dist.tracking.plots import to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; background: #fff;
       max-width: 1120px; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.note, figcaption { color: #5b6673; font-size: .85rem; margin: .4rem 0; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; }
th, td { padding: .3rem .8rem; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #c9d1da; font-weight: 600; }
td { border-bottom: 1px solid #e7ebef; }
th:first-child, td:first-child { text-align: left; font-weight: 600; }
td.best { font-weight: 700; color: #1f5f3a; background: #eef7f1; }
figure { margin: .5rem 0 1.5rem; }
svg { max-width: 100%; height: auto; }
"""


def write_page(
    title: str, subtitle: str, tables: Sequence[Table], plots: Mapping[str, "Figure"], plots_at: int
) -> str:
    """The page.

    Args:
        title: Its heading.
        subtitle: A line below it.
        tables: In their order.
        plots: By caption.
        plots_at: Number of the tables before them.
    """
    figures = [_figure(caption, figure) for caption, figure in plots.items()]
    elements = [_table(table) for table in tables]
    body = "\n".join(elements[:plots_at] + figures + elements[plots_at:])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>"
        f'<h1>{escape(title)}</h1><p class="note">{escape(subtitle)}</p>\n{body}\n'
        f"</body></html>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join(
        "<tr>"
        + "".join(
            f'<td class="best">{escape(cell.text)}</td>'
            if cell.is_best
            else f"<td>{escape(cell.text)}</td>"
            for cell in row
        )
        + "</tr>\n"
        for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<h2>{escape(table.title)}</h2><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{rows}</tbody></table></div>{note}"
    )


def _figure(caption: str, figure: "Figure") -> str:
    return f"<figure><h2>{escape(caption)}</h2>{to_svg(figure, escape(caption))}</figure>"
