"""The verb ``sweep``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from egra_dist.cli.run import (
    CatalogOption,
    ClusterFile,
    ConfigFile,
    Overrides,
    Verbosity,
    Workers,
    all_overrides,
)

if TYPE_CHECKING:
    from egra_dist.sweep.record import SweepRecord

_SHOWN = 5


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command()(sweep)


def sweep(
    config: ConfigFile,
    catalog: CatalogOption,
    space: Annotated[Path, typer.Option(help="YAML file of what is varied.")],
    out: Annotated[Path, typer.Option(help="Folder of the search.")],
    samples: Annotated[
        int | None, typer.Option(min=1, help="Number of draws; short for num_samples.")
    ] = None,
    cluster: ClusterFile = None,
    workers: Workers = None,
    overrides: Overrides = None,
    final: Annotated[
        bool, typer.Option("--final", help="Evaluate the best on test and export it at the end.")
    ] = False,
    verbose: Verbosity = 0,
) -> None:
    """Search the settings that do best on the validation split.

    Trials share what is equal, bad ones are stopped early, and the same command goes on after an
    interruption. The test split is read by --final alone, once, for the settings that were chosen.

    Examples:
      egra-dist sweep configs/tiktok.yaml --catalog catalogs/tiktok
      --space configs/sweeps/egra.yaml --out sweeps/tiktok --samples 24

      egra-dist run sweeps/tiktok/best.yaml --catalog catalogs/tiktok --out runs/tiktok
      --artifacts sweeps/tiktok/artifacts
    """
    from egra_dist.catalog.catalog import Catalog
    from egra_dist.config import load_config
    from egra_dist.sweep.space import load_space
    from egra_dist.tracking.noise import setup_logging

    setup_logging(verbose)
    settings = all_overrides(overrides, workers)
    given, opened = load_config(config, settings, cluster), Catalog.open(catalog)
    searched = load_space(space, samples)
    from egra_dist.sweep.run import run_sweep  # seconds of imports: the user's mistakes first

    record = run_sweep(given, opened, searched, out, verbose, str(space))
    _print(record, searched.metric or given.train.metric)
    command = ["run", out / "best.yaml", "--catalog", catalog, "--out", out / "best"]
    command += ["--artifacts", out / "artifacts"]
    if not final:
        typer.echo(f"{out / 'best.yaml'} has the settings; to evaluate and export:")
        typer.echo(f"  egra-dist {' '.join(map(str, command))}")
        return
    from egra_dist.cli.run import run

    run(
        out / "best.yaml", str(catalog), out / "best", cluster, workers, artifacts=out / "artifacts"
    )


def _print(record: "SweepRecord", metric: str) -> None:
    """The best few trials, in the order of their rank."""
    from egra_dist.tracking.summary import print_table

    rows = {
        f"{trial.name} {trial.status}": {f"valid {metric}": trial.score or 0.0}
        for trial in record.ranking[:_SHOWN]
    }
    print_table(rows, [f"valid {metric}"], title="best trials")
