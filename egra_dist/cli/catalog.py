"""Verbs that make catalogues: ``ingest mmrec``, ``ingest events``, ``synth``."""

from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from egra_dist.errors import UserError

if TYPE_CHECKING:
    from egra_dist.catalog.catalog import Catalog
    from egra_dist.config import FeatureSettings

Out = Annotated[Path, typer.Option(help="The catalogue folder to write.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random choice.")]
Center = Annotated[
    bool, typer.Option("--center", help="Take the mean away from the features of each modality.")
]
Whiten = Annotated[
    bool,
    typer.Option("--whiten", help="Make feature columns uncorrelated with variance 1; centres."),
]
Pca = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="WIDTH", help="Keep so many principal components of features; centres."
    ),
]

ingest = typer.Typer(no_args_is_help=True, help="Turn raw data into a catalogue.")


class Split(StrEnum):
    """How held-out interactions are chosen."""

    ratio = "ratio"
    last = "last"
    time = "time"


def register(app: typer.Typer) -> None:
    """Adds the verbs to the command line."""
    app.add_typer(ingest, name="ingest")
    app.command()(synth)


@ingest.command()
def mmrec(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The MMRec folder.")],
    out: Out,
    time: Annotated[
        str | None, typer.Option(help="Column of times in the .inter file: integers from 0.")
    ] = None,
    rows_in_order: Annotated[
        bool, typer.Option("--rows-in-order", help="Its rows stand in the order of time.")
    ] = False,
    center: Center = False,
    whiten: Whiten = False,
    pca: Pca = None,
    seed: Seed = 0,
) -> None:
    """Read a folder in MMRec's format: NAME.inter and MODALITY_feat.npy files.

    The .inter file is tab-separated with columns userID, itemID, x_label (0 train, 1 valid,
    2 test). Row i of a feature file belongs to itemID i; a row of zeros marks it as missing. Times
    are kept where --time or --rows-in-order tells them; the settings history.* use them.

    Example: egra-dist ingest mmrec data/tiktok --out catalogs/tiktok

    Example: egra-dist ingest mmrec data/microlens --time timestamp --out catalogs/microlens

    Example: egra-dist ingest mmrec data/wide --pca 256 --out catalogs/narrow
    """
    from egra_dist.catalog.mmrec import Order, ingest_mmrec

    if time is not None and rows_in_order:
        raise UserError(f"--time {time}: not together with --rows-in-order")
    started = perf_counter()
    preprocessing = _preprocessing(center, whiten, pca)
    order = Order(time) if time is not None or rows_in_order else None
    _report(ingest_mmrec(folder, out, seed, preprocessing, order), started)


@ingest.command()
def events(
    file: Annotated[Path, typer.Argument(help="Parquet, CSV or TSV file, or a folder of them.")],
    out: Out,
    user: Annotated[str, typer.Option(help="Column of user ids (strings or integers).")],
    item: Annotated[str, typer.Option(help="Column of item ids (strings or integers).")],
    time: Annotated[
        str | None, typer.Option(help="Column of times: integers, timestamps or dates.")
    ] = None,
    k_core: Annotated[
        int, typer.Option(min=0, help="Every user and item that stays has so many interactions.")
    ] = 5,
    split: Annotated[
        Split,
        typer.Option(
            help="ratio: shares of each user's events, the latest held out (random ones without "
            "--time). last: each user's last tests, the last but one validates. time: the same "
            "instants divide all users."
        ),
    ] = Split.ratio,
    ratios: Annotated[
        str, typer.Option(help="Train, valid and test shares, for ratio and time.")
    ] = ".8,.1,.1",
    items: Annotated[
        Path | None, typer.Option(help="Item table; its columns, such as title, are kept.")
    ] = None,
    item_id: Annotated[
        str, typer.Option(help="Column of item ids in --items and --feature-ids.")
    ] = "item_id",
    feature: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SOURCE",
            help="A modality: a list column of --items, or a .npy file of one row per item of "
            "--feature-ids (without it, of --items). May be repeated.",
        ),
    ] = None,
    feature_ids: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE",
            help="Item id of each row of the .npy files (or of NAME's): a .txt file with one id "
            "per line, or a table with the --item-id column. May be repeated.",
        ),
    ] = None,
    center: Center = False,
    whiten: Whiten = False,
    pca: Pca = None,
    seed: Seed = 0,
) -> None:
    """Read a table of events with raw ids: who interacted with what, and when.

    Repeated events of a user and an item count once, the earliest. Users without a training
    event (they joined after the cut of a time split) are dropped. Items that --feature does not
    name, or names by a row of zeros, lack the modality.

    Example: egra-dist ingest events clicks.parquet --user user --item item --time at --split last
    --out catalogs/clicks

    Example: egra-dist ingest events clicks/ --user user --item item --items items.parquet
    --item-id id --feature text=text_vector --feature image=image.npy
    --feature-ids image=image_ids.txt --out catalogs/clicks
    """
    from egra_dist.catalog.events import EventSettings, ingest_events
    from egra_dist.catalog.items import ItemOptions

    started = perf_counter()
    settings = EventSettings(user, item, time, k_core, split.value, _shares(ratios), seed)
    ids = {name: Path(path) for name, path in _pairs("--feature-ids", feature_ids or [], "")}
    options = ItemOptions(items, item_id, dict(_pairs("--feature", feature or [])), ids)
    preprocessing = _preprocessing(center, whiten, pca)
    _report(ingest_events(file, out, settings, options, preprocessing), started)


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


def _preprocessing(center: bool, whiten: bool, pca: int | None) -> "FeatureSettings":
    from egra_dist.config import FeatureSettings

    return FeatureSettings(center=center, whiten=whiten, width=pca)


def _shares(text: str) -> tuple[float, float, float]:
    try:
        train, valid, test = (float(share) for share in text.split(","))
    except ValueError:
        raise UserError(f"--ratios {text}: must be three numbers such as .8,.1,.1") from None
    return train, valid, test


def _pairs(option: str, texts: list[str], default_name: str | None = None) -> list[tuple[str, str]]:
    """Splits ``NAME=VALUE`` texts; a text without a name gets the default, if there is one."""
    pairs: list[tuple[str, str]] = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals and default_name is not None:
            name, value = default_name, text
        if not value or (equals and not name.isidentifier()):
            raise UserError(f"{option} {text}: must be NAME=VALUE, the name of letters and digits")
        if name in dict(pairs):
            raise UserError(f"{option} {text}: {name or 'a file for all'} was given before")
        pairs.append((name, value))
    return pairs


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
