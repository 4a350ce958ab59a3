"""``egra-dist track``: what became of the records."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look after what a run records in MLflow.", no_args_is_help=True)


def register(parent: typer.Typer) -> None:
    """Adds the verbs of this group."""
    parent.add_typer(app, name="track")


@app.callback()
def _group() -> None:
    """Look after what a run records in MLflow."""


@app.command()
def sync(
    run: Annotated[Path, typer.Argument(help="Folder of a run that is not running now.")],
    uri: Annotated[
        str | None, typer.Option(help="Another tracking URI than the run's own.")
    ] = None,
) -> None:
    """Deliver to MLflow what a run could not deliver at the time.

    Example: egra-dist track sync runs/tiktok
    """
    from egra_dist.tracking.sync import sync as deliver

    deliver(run, uri)
    typer.echo(f"{run}: MLflow has everything")
