"""The verb that turns texts and images of items into features: ``featurize``."""

from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from egra_dist.errors import UserError


class Dtype(StrEnum):
    """Type of the features."""

    float16 = "float16"
    float32 = "float32"


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command()(featurize)


def featurize(
    source: Annotated[
        Path, typer.Argument(help="A catalogue, or a Parquet, CSV or TSV table of items.")
    ],
    out: Annotated[Path, typer.Option(help="The folder of features to write.")],
    encoder: Annotated[
        str,
        typer.Option(
            help="Texts: a folder or hub name of sentence-transformers. Images: an architecture "
            "of torchvision, or open_clip:ARCHITECTURE/TAG. Either: your own, "
            "package.module:factory."
        ),
    ],
    text: Annotated[
        str | None,
        typer.Option(metavar="TEMPLATE", help="Column of texts, or columns: '{title}. {brand}'."),
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of paths of image files.")
    ] = None,
    item_id: Annotated[str, typer.Option(help="Column of item ids in a table.")] = "item_id",
    weights: Annotated[
        Path | None,
        typer.Option(help="File of weights for an image encoder, instead of a download."),
    ] = None,
    image_folder: Annotated[
        Path, typer.Option(help="Where relative paths of images start.")
    ] = Path(),
    dtype: Annotated[Dtype, typer.Option(help="Type of the features.")] = Dtype.float16,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of encoders at once; by default one per GPU, else per four CPUs."
        ),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(min=0, help="GPUs of each encoder, e.g. .5; 1 by default if there is one."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Items that an encoder gets at once; by default 256 on a GPU, 32 on a CPU."
        ),
    ] = None,
    range_rows: Annotated[
        int, typer.Option(min=1, help="Rows kept as one: what an interruption loses at most.")
    ] = 1024,
    address: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster; a local one by default.")
    ] = None,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Show what libraries say.")
    ] = 0,
) -> None:
    """Turn the texts or images of items into features, on one machine or a Ray cluster.

    Writes features.npy (a row of zeros where an item has no text or no readable image) and
    ids.parquet, as ingest events takes them. It can be interrupted: called again it goes on, and
    when the table has grown it encodes what is new.

    Example: egra-dist featurize items.parquet --text title
    --encoder sentence-transformers/all-MiniLM-L6-v2 --out features/text

    Example: egra-dist featurize catalogs/clicks --text '{title}. {brand}' --encoder models/minilm
    --out features/text

    Example: egra-dist featurize items.parquet --image path --image-folder photos
    --encoder resnet50 --weights resnet50.pth --concurrency 4 --gpus .5 --out features/image

    Then: egra-dist ingest events clicks.parquet --user user --item item --out catalogs/clicks
    --feature text=features/text/features.npy --feature-ids text=features/text/ids.parquet
    """
    from egra_dist.featurize.encode import Placement
    from egra_dist.featurize.ranges import FEATURES
    from egra_dist.featurize.run import IDS, FeaturizeSettings
    from egra_dist.featurize.run import featurize as run
    from egra_dist.tracking.noise import setup_logging

    setup_logging(verbose)
    if (text is None) == (image is None):
        raise UserError("give one of --text TEMPLATE and --image COLUMN")
    started = perf_counter()
    settings = FeaturizeSettings(
        kind="text" if text is not None else "image",
        template=text or image or "",
        encoder=encoder,
        weights=weights,
        id_column=item_id,
        folder=image_folder.absolute(),
        dtype=dtype.value,
        rows_per_range=range_rows,
    )
    counts = run(source, out, settings, Placement(address, concurrency, gpus, batch_size))
    facts = counts.manifest.counts
    typer.echo(
        f"{out / FEATURES}: {facts['num_items']:,} items [{facts['dim']}], "
        f"{facts['num_missing']:,} missing; ids in {out / IDS} ({perf_counter() - started:.1f} s)"
    )
