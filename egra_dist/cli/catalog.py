"""Verbs that make catalogues: ``ingest mmrec``, ``ingest events``, ``synth``."""

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from egra_dist.catalog.catalog import Catalog

Out = Annotated[Path, typer.Option(help="The catalogue folder to write.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random choice.")]
Size = Annotated[int, typer.Option(min=1)]
Share = Annotated[float, typer.Option(min=0, max=1)]

ingest = typer.Typer(no_args_is_help=True, help="Turn raw data into a catalogue.")


def register(app: typer.Typer) -> None:
    """Adds the verbs to the command line."""
    app.add_typer(ingest, name="ingest")
    app.command()(synth)


@ingest.command()
def mmrec(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The MMRec folder.")],
    out: Out,
    seed: Seed = 0,
) -> None:
    """Read a folder in MMRec's format: NAME.inter and MODALITY_feat.npy files.

    The .inter file is tab-separated with columns userID, itemID, x_label (0 train, 1 valid,
    2 test). Row i of a feature file belongs to itemID i; a row of zeros marks it as missing.

    Example: egra-dist ingest mmrec data/tiktok --out catalogs/tiktok
    """
    from egra_dist.catalog.mmrec import ingest_mmrec

    started = perf_counter()
    _report(ingest_mmrec(folder, out, seed), started)


def synth(
    items: Annotated[int, typer.Option(min=100, help="Number of items.")],
    users: Annotated[int, typer.Option(min=1, help="Number of users.")],
    interactions: Annotated[int, typer.Option(min=3, help="Number of interactions, about.")],
    out: Out,
    modalities: Annotated[int, typer.Option(min=0, help="Number of modalities.")] = 2,
    dim: Annotated[int, typer.Option(min=1, help="Width of a modality's features.")] = 64,
    corrupted_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of feature rows that are noise alone.")
    ] = 0.1,
    missing_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of feature rows that are missing.")
    ] = 0.05,
    seed: Seed = 0,
) -> None:
    """Make a synthetic catalogue of any size, in bounded memory.

    Users choose items by taste and Zipf popularity; modalities are noisy views of the items.

    Example: egra-dist synth --items 3000 --users 6000 --interactions 65000 --out catalogs/demo
    """
    from egra_dist.catalog.synth import SynthSettings, synthesize

    started = perf_counter()
    settings = SynthSettings(
        num_items=items,
        num_users=users,
        num_interactions=interactions,
        num_modalities=modalities,
        dim=dim,
        corrupted_share=corrupted_share,
        missing_share=missing_share,
        seed=seed,
    )
    _report(synthesize(settings, out), started)


def _report(catalog: "Catalog", started: float) -> None:
    """Prints what a catalogue holds, in one line."""
    splits = " / ".join(
        f"{catalog.num_interactions(split):,}" for split in ("train", "valid", "test")
    )
    facts = catalog.manifest.counts["modalities"]
    modalities = ", ".join(
        f"{name} [{facts[name]['dim']}, {facts[name]['num_missing']:,} missing]"
        for name in catalog.modalities
    )
    typer.echo(
        f"{catalog.path}: {catalog.num_users:,} users, {catalog.num_items:,} items, "
        f"{splits} train / valid / test interactions; modalities: {modalities or 'none'} "
        f"({perf_counter() - started:.1f} s)"
    )
