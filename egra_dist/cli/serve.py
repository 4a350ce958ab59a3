"""Verbs for finished runs: ``export`` and ``recommend``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from egra_dist.cli.run import Overrides, Verbosity
from egra_dist.errors import UserError

if TYPE_CHECKING:
    from egra_dist.serve.explain import Explanation, Neighbor

Run = Annotated[Path, typer.Argument(help="Folder of a finished run.")]


def register(app: typer.Typer) -> None:
    """Adds the verbs to the command line."""
    app.command()(export)
    app.command()(recommend)


def export(
    run: Run,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Also write the list of so many items of every user.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name in MLflow's registry; the experiment's by default.")
    ] = None,
    alias: Annotated[str | None, typer.Option(help="Alias in MLflow's registry.")] = None,
    catalog: Annotated[
        Path | None, typer.Option(help="Catalogue folder, if it is elsewhere by now.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster that makes the lists; short for cluster.address."),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Leave MLflow's registry alone: files only.")
    ] = False,
    overrides: Overrides = None,
    verbose: Verbosity = 0,
) -> None:
    """Write vectors, index and a servable model, and register the model in MLflow.

    What is there already is not written again.

    Examples:
      egra-dist export runs/first --top-k 50 --name shop --alias champion

      egra-dist export runs/first --set export.index=hnsw --local
    """
    from egra_dist.tracking.noise import setup_logging

    setup_logging(verbose)
    from egra_dist.exports import LISTS, MODEL, FinishedRun, export_run

    short = {
        "export.top_k": top_k,
        "export.model_name": name,
        "export.alias": alias,
        "cluster.address": address,
    }
    given = [f"{key}={json.dumps(value)}" for key, value in short.items() if value is not None]
    opened = FinishedRun.open(run, [*given, *(overrides or [])])
    facts = export_run(opened, opened.open_catalog(catalog), not local, verbose)
    index, folder = facts["index"], run / "export"
    typer.echo(f"{folder}: {facts['num_users']:,} users, {facts['num_items']:,} items")
    typer.echo(
        f"index {index['kind']}: recall@20 {index['recall_at_20']:.4f} of exact, over "
        f"{index['sampled_users']:,} users"
    )
    if "num_lists" in facts:
        typer.echo(f"{run / LISTS}: lists of {facts['num_lists']:,} users")
    if "version" in facts:
        typer.echo(f"registered: {facts['name']} version {facts['version']}, @{facts['alias']}")
    typer.echo(f"serve it: mlflow models serve -m {folder / MODEL} --env-manager local")


def recommend(
    run: Run,
    user: Annotated[str | None, typer.Option(help="Id of a user.")] = None,
    items: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Ids of items that somebody chose, latest last."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Items to recommend.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recommend items to a user, or to somebody who chose some items, and say why.

    Examples:
      egra-dist recommend runs/first --user u17

      egra-dist recommend runs/first --items sku1,sku2 -k 5 --json
    """
    if user is None and not items:
        raise UserError("recommend: give --user ID, or --items A,B")
    from egra_dist.exports import open_explainer
    from egra_dist.serve.explain import parse_query

    explainer = open_explainer(run)
    chosen = items.split(",") if items else []
    query = parse_query(explainer.recommender, user, chosen)
    explained = explainer.explain(query, k)
    if as_json:
        typer.echo(json.dumps(asdict(explained), indent=2))
        return
    is_decaying = explained.source == "items" and explainer.recommender.decay < 1
    typer.echo(_SOURCES["latest items" if is_decaying else explained.source])
    if explained.ignored:
        typer.echo(f"not known: {', '.join(map(str, explained.ignored))}")
    for place, item in enumerate(explained.items, 1):
        _show(place, item)


_SOURCES = {
    "user": "by the user's vector; near: items of their history, by cosine of the vectors",
    "items": "by the mean of the items' vectors; near: the items, with what each adds to the score",
    "latest items": "by the mean of the items' vectors, the latest weighing most; near: the items, "
    "with what each adds to the score",
    "popularity": "nothing is known of them: the most popular items, with their interactions",
}


def _show(place: int, item: "Explanation") -> None:
    named = f"{item.item}" + (f"  {item.title}" if item.title else "")
    parts = ", ".join(f"{name} {value:+.4f}" for name, value in item.parts.items())
    typer.echo(f"{place:>3}  {named}  {item.score:.4f}" + (f" = {parts}" if parts else ""))
    for neighbor in item.neighbors:
        typer.echo(f"       near {_neighbor(neighbor)}")


def _neighbor(neighbor: "Neighbor") -> str:
    named = f"{neighbor.item}" + (f"  {neighbor.title}" if neighbor.title else "")
    how = f"{neighbor.share:+.4f}" if neighbor.share is not None else f"{neighbor.cosine:.2f}"
    features = "".join(f", {name} {cosine:.2f}" for name, cosine in neighbor.features.items())
    linked = f", linked in the item graph {neighbor.linked:.2f}" if neighbor.linked else ""
    return f"{named}  {how}{features}{linked}"
