"""The tables of ``tests.benchmarks.knn``, and where they go."""

import numpy as np

from tests.benchmarks.document import replace_between

MARKERS = ("<!-- knn benchmark -->", "<!-- end of knn benchmark -->")
STAGE_MARKERS = ("<!-- knn stages -->", "<!-- end of knn stages -->")


def write_tables(rows):
    """Into ``docs/performance.md`` and ``docs/scale.md``."""
    replace_between("performance.md", MARKERS, table_of(rows))
    replace_between("scale.md", STAGE_MARKERS, stage_table(rows, "routed .95"))


def table_of(rows):
    """One line for each method and table of vectors."""
    lines = [
        "| data | rows | dim | method | CPU s | wall s | recall@10 | peak MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda r: (r["data"], r["num_rows"], r["dim"], r["cpu"])):
        lines.append(
            f"| {row['data']} | {row['num_rows']:,} | {row['dim']} | {row['method']} "
            f"| {row['cpu']:.1f} | {row['wall']:.1f} | {row['recall']:.4f} "
            f"| {row['peak_mb']:,.0f} |"
        )
    return "\n".join(lines)


def stage_table(rows, method):
    """CPU seconds of each stage by size, and the power of n that fits their growth best."""
    fixed = (method, "clustered", 64)
    chosen = [row for row in rows if (row["method"], row["data"], row["dim"]) == fixed]
    chosen.sort(key=lambda row: row["num_rows"])
    sizes = [row["num_rows"] for row in chosen]
    seconds = [row["core_seconds"] for row in chosen]
    stages = [*dict.fromkeys(name for of_size in seconds for name in of_size if name != "total")]
    lines = [
        line(method, (f"{size:,}" for size in sizes), "grows as"),
        "|---" * (len(sizes) + 2) + "|",
        line("recall@10", (f"{row['recall']:.4f}" for row in chosen)),
        line("lists per row", (f"{row['lists_per_row']:.1f}" for row in chosen)),
        line("lists", (f"{row['num_lists']:,}" for row in chosen)),
        line("peak MB", (f"{row['peak_mb']:,.0f}" for row in chosen)),
    ]
    for name in (*stages, "total"):
        figures = [of_size.get(name, 0.0) for of_size in seconds]
        lines.append(line(name, (f"{figure:.2f}" for figure in figures), growth(sizes, figures)))
    return "\n".join(lines)


def growth(sizes, figures):
    """The power of n that fits; nothing of a single size."""
    if len(sizes) < 2:
        return ""
    return f"n^{np.polyfit(np.log(sizes), np.log(np.maximum(figures, 1e-3)), 1)[0]:.2f}"


def line(name, cells, last=""):
    """A row of a Markdown table."""
    return f"| {' | '.join([name, *cells, last])} |"
