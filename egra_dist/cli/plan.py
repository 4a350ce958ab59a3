"""The verb ``plan``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from egra_dist.cli.run import Overrides, Workers
from egra_dist.errors import UserError

if TYPE_CHECKING:
    from egra_dist.config import Config
    from egra_dist.plan.plan import Plan
    from egra_dist.plan.sizes import Sizes

_GB = 2**30


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command()(plan)


def plan(
    config: Annotated[Path, typer.Argument(help="YAML file of what is learned.")],
    catalog: Annotated[
        Path | None, typer.Option(help="Catalogue folder; or give its counts.")
    ] = None,
    users: Annotated[int | None, typer.Option(min=1, help="Number of users.")] = None,
    items: Annotated[int | None, typer.Option(min=1, help="Number of items.")] = None,
    interactions: Annotated[
        int | None, typer.Option(min=1, help="Number of training interactions.")
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:WIDTH", help="A modality and the width of its features."),
    ] = None,
    workers: Workers = None,
    memory_per_worker: Annotated[
        str, typer.Option(metavar="SIZE", help="Memory of each worker: 512M, 16G, 1.5T.")
    ] = "16G",
    cluster: Annotated[Path | None, typer.Option(help="YAML file of where it runs.")] = None,
    overrides: Overrides = None,
    sharding: Annotated[
        bool, typer.Option("--sharding", help="Ask TorchRec's planner for its shards; seconds.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Say what a run will take and whether it fits, before anything runs.

    Memory of the largest worker by part, bytes that reach it per step, steps per epoch, and what
    the searches for neighbours cost. Exit status 1 if a training does not fit.

    Examples:
      egra-dist plan configs/default.yaml --catalog catalogs/mine --workers 4

      egra-dist plan configs/default.yaml --users 5000000 --items 10000000
      --interactions 80000000 --modality image:64 --modality text:64 --workers 8
      --memory-per-worker 64G
    """
    from egra_dist.config import load_config
    from egra_dist.plan.plan import make_plan
    from egra_dist.plan.sizes import parse_bytes

    settings = load_config(config, overrides or [], cluster)
    sizes = _sizes(catalog, users, items, interactions, modality or [])
    made = make_plan(
        settings, sizes, workers or settings.cluster.num_workers, parse_bytes(memory_per_worker)
    )
    shards = _shards(settings, made) if sharding else {}
    if as_json:
        typer.echo(json.dumps(made.as_json() | {"sharding": shards}, indent=2))
    else:
        _show(made)
        for name, table in shards.items():
            typer.echo(_shard_line(name, table))
    if not made.fits:
        raise typer.Exit(1)


def _sizes(
    catalog: Path | None,
    users: int | None,
    items: int | None,
    interactions: int | None,
    modalities: list[str],
) -> "Sizes":
    from egra_dist.catalog.catalog import Catalog
    from egra_dist.plan.sizes import parse_modalities, sizes_of_catalog, sizes_of_counts

    counts = (users, items, interactions)
    if catalog is not None:
        if modalities or any(count is not None for count in counts):
            raise UserError("--catalog: has counts of its own; leave --users and the like out")
        return sizes_of_catalog(Catalog.open(catalog))
    if users is None or items is None or interactions is None:
        raise UserError("plan: give --catalog, or all of --users, --items and --interactions")
    return sizes_of_counts(users, items, interactions, parse_modalities(modalities))


def _shards(settings: "Config", made: "Plan") -> dict[str, dict[str, Any]]:
    """What TorchRec's planner makes of the tables of the main training."""
    from dataclasses import asdict

    from egra_dist.tracking.noise import setup_logging
    from egra_dist.train.sharding import plan_sharding

    setup_logging()
    model = settings.train.model
    found = plan_sharding(
        {"user": made.num_users, "item": made.num_items},
        {"user": model.user_dim, "item": model.dim},
        made.num_workers,
        "cuda" if settings.cluster.gpus_per_worker else "cpu",
        settings.train.tables,
    )
    return {name: asdict(table) for name, table in found.items()}


def _shard_line(name: str, table: dict[str, Any]) -> str:
    shards = zip(table["ranks"], table["rows"], table["columns"], strict=True)
    places = ", ".join(f"worker {rank}: {rows:,} x {columns}" for rank, rows, columns in shards)
    return f"{name} table: {table['sharding']}, {table['kernel']}, rows x columns of {places}"


def _show(made: "Plan") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("largest worker", box=box.SIMPLE_HEAD)
    for stage in made.trainings:
        table.add_column(stage, justify="right")
    plans = list(made.trainings.values())
    table.add_row("users / items", *(f"{p.worker.users:,} / {p.worker.items:,}" for p in plans))
    table.add_row("halo rows", *(f"{p.worker.halo:,}" for p in plans))
    for part in plans[0].memory:
        table.add_row(f"{part}, GB", *(f"{p.memory[part] / _GB:.3f}" for p in plans))
    table.add_row("together, GB", *(f"{p.total / _GB:.3f}" for p in plans))
    table.add_row("received per step, MB", *(f"{p.bytes_per_step / 2**20:,.1f}" for p in plans))
    table.add_row("steps per epoch", *(f"{p.steps_per_epoch:,}" for p in plans))
    limit = f"{made.memory_per_worker / _GB:g} GB"
    table.add_row(f"fits into {limit}", *("yes" if p.fits else "NO" for p in plans))
    Console(width=120, highlight=False).print(table)
    for name, search in made.searches.items():
        typer.echo(
            f"{name}: {search.num_rows:,} vectors of {search.dim}, {search.method}: "
            f"{search.seconds:,.0f} {search.processor} seconds, {search.hours:.2f} h on all workers"
        )
    typer.echo(f"on disk: {sum(made.disk.values()) / _GB:.2f} GB of graphs and features")
