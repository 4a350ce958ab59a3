"""The whole comparison: read, grouped, and written down. Read this first."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from egra_dist.compare.find import FoundRun
from egra_dist.compare.groups import Group, compare, differing, group, metrics_of, summarize
from egra_dist.compare.page import write_page
from egra_dist.compare.plots import all_plots
from egra_dist.compare.runs import ComparedRun, read_run
from egra_dist.compare.tables import METRICS, Table, all_tables
from egra_dist.errors import UserError

PAGE = "comparison.html"
RUNS = "runs.csv"
GROUPS = "groups.csv"
_MOST_COLUMNS = 7


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        title: What is compared.
        groups: The runs, by equal settings.
        reference: The group that others are compared with.
    """

    title: str
    groups: list[Group]
    reference: Group

    @classmethod
    def of(
        cls, found: Sequence[FoundRun], title: str = "", baseline: str | None = None
    ) -> "Comparison":
        """Reads and groups runs.

        Args:
            found: At least two.
            title: What they are; their number when not given.
            baseline: Name or id of the run whose group is the reference; the first one's if None.

        Raises:
            UserError: If there is only one run, or the baseline is none of them.
        """
        unique = {item.parent.run_id: item for item in found}
        if len(unique) < 2:
            raise UserError(f"{len(unique)} run to compare; at least two are needed")
        groups = group([read_run(item) for item in unique.values()])
        return cls(title or f"{len(unique)} runs", groups, _reference(groups, baseline))

    @property
    def runs(self) -> list[ComparedRun]:
        """All runs."""
        return [run for group in self.groups for run in group.runs]

    def tables(self) -> list[Table]:
        """Every table."""
        return all_tables(self.groups, self.reference)

    def print(self, stream: TextIO | None = None) -> None:
        """Prints the tables."""
        for table in self.tables():
            _print(table, stream)

    def write(self, folder: Path) -> None:
        """Writes the page and the tables as CSV.

        Raises:
            UserError: If the folder cannot be written.
        """
        names = ", ".join(run.name for run in self.runs[:12])
        hidden = f" and {len(self.runs) - 12} more" if len(self.runs) > 12 else ""
        subtitle = f"{len(self.runs)} runs in {len(self.groups)} groups: {names}{hidden}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tables, plots = self.tables(), all_plots(self.groups)
            place = next((n for n, table in enumerate(tables) if table.title == METRICS), 1)
            page = write_page(self.title, subtitle, tables, plots, place)
            (folder / PAGE).write_text(page)
            _write_csv(folder / RUNS, self._rows_of_runs())
            _write_csv(folder / GROUPS, self._rows_of_groups())
        except OSError as error:
            raise UserError(f"{folder}: cannot be written: {error.strerror}") from None

    def _rows_of_runs(self) -> list[dict[str, Any]]:
        names = differing(self.runs)
        return [
            {
                "run": run.name,
                "run_id": run.run_id,
                "group": group.label,
                "seed": run.seed,
                **{name: run.settings.get(name, "") for name in names},
                **run.metrics,
                **run.slices,
                **run.cost,
            }
            for group in self.groups
            for run in group.runs
        ]

    def _rows_of_groups(self) -> list[dict[str, Any]]:
        slices = dict.fromkeys(name for run in self.runs for name in run.slices)
        rows = []
        for member in self.groups:
            for metric in (*metrics_of(self.groups), *slices):
                summary = summarize(member, metric)
                if summary is None:
                    continue
                row: dict[str, Any] = {"group": member.label, **member.settings, "metric": metric}
                row |= _named(("seeds", "mean", "deviation"), summary)
                difference = compare(member, self.reference, metric)
                if difference and member is not self.reference:
                    names = ("common_seeds", "difference", "half_width", "p")
                    row |= _named(names, difference)
                rows.append(row)
        return rows


def _named(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))


def _reference(groups: Sequence[Group], baseline: str | None) -> Group:
    if baseline is None:
        return groups[0]
    for candidate in groups:
        names = {candidate.label} | {n for run in candidate.runs for n in (run.name, run.run_id)}
        if baseline in names:
            return candidate
    known = ", ".join(run.name for member in groups for run in member.runs)
    raise UserError(f"--baseline {baseline}: none of the runs compared: {known}")


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _print(table: Table, stream: TextIO | None) -> None:
    """Prints a table; a wide one in several parts, each with the names of its rows."""
    from egra_dist.tracking.summary import print_cells

    columns = range(1, len(table.columns))
    for start in columns[::_MOST_COLUMNS]:
        part = [0, *columns[start - 1 : start - 1 + _MOST_COLUMNS]]
        rows = [[row[column] for column in part] for row in table.rows]
        title = table.title if start == 1 else f"{table.title} (more)"
        print_cells(title, [table.columns[column] for column in part], rows, stream)
