"""The verb ``compare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from egra_dist.compare.find import FoundRun
    from egra_dist.compare.report import Comparison

_LOGGED_AS = "comparison"


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command()(compare)


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN...", help="Run folders, or ids or names of runs in MLflow."),
    ] = None,
    condition: Annotated[
        str | None, typer.Option("--filter", help="Also the runs that fit this MLflow filter.")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(help="Also the trials of this search: its name or folder.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The run whose settings are the reference; else the first.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the HTML page and the CSV files.")
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="Add page and files to MLflow.")] = False,
    uri: Annotated[
        str | None, typer.Option(help="Tracking URI; MLFLOW_TRACKING_URI when not given.")
    ] = None,
    experiment: Annotated[str, typer.Option(help="MLflow experiment of names and filters.")] = (
        "egra"
    ),
) -> None:
    """Compare runs: settings that differ, metrics over seeds, slices, schedules, cost.

    Runs whose settings are equal but for the seed are one group. Groups are compared with the
    first run's, seed by seed.

    Examples:
      egra-dist compare runs/first runs/easy --out comparison

      egra-dist compare --sweep sweeps/tiktok --out comparison --log

      egra-dist compare --uri http://HOST:5000 --filter "tags.dataset = 'tiktok'"
    """
    from egra_dist.compare.find import Finder
    from egra_dist.compare.report import Comparison

    finder = Finder(uri, experiment)
    found = finder.runs(runs or [])
    if condition:
        found += finder.matching(condition)
    title, head = "", None
    if sweep:
        head, trials = finder.sweep(sweep)
        found += trials
        title = f"{head.parent.name}: {len(trials)} trials"
    comparison = Comparison.of(found, title, baseline)
    comparison.print()
    if out:
        comparison.write(out)
        typer.echo(f"{out} has the page and the figures as CSV.")
    if log:
        typer.echo(f"logged with run {_log(comparison, head, found[0])}")


def _log(comparison: "Comparison", head: "FoundRun | None", first: "FoundRun") -> str:
    """Adds the files to the run of the search, or to a run of their own."""
    import tempfile

    run_id = head.parent.run_id if head else None
    records = head.records if head else first.records
    if run_id is None:
        tags = {_LOGGED_AS: ",".join(run.run_id for run in comparison.runs)}
        run_id = records.new_run(first.parent, f"comparison of {len(comparison.runs)} runs", tags)
    with tempfile.TemporaryDirectory() as folder:
        comparison.write(Path(folder))
        records.log_files(run_id, Path(folder), _LOGGED_AS)
    return run_id
