"""A synthetic catalogue of any size, streamed.

A genre is a plane of niches, and a niche holds a few items. A user has a few interests, points in
genres; an interaction is a niche near one of them, then an item of it by Zipf popularity, or once
in a while any item. Modalities are noisy views of the genre and the place in it. Users come in
blocks, each with a random generator of its own, so that memory does not grow with the number of
interactions.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from egra_dist.catalog.catalog import SPLITS, Catalog, Entities
from egra_dist.catalog.features import BLOCK_ROWS
from egra_dist.catalog.split import split_by_ratio
from egra_dist.catalog.synth_taste import World, draw_activity, draw_choices
from egra_dist.catalog.synth_views import Views
from egra_dist.catalog.writer import CatalogWriter, writing_catalog
from egra_dist.errors import UserError
from egra_dist.tracking.progress import StageProgress

RATIOS = (0.8, 0.1, 0.1)
INTERACTIONS_PER_BLOCK = 1 << 20
ENTITIES_PER_BLOCK = 1 << 20
MIN_PER_USER = 3
"""Interactions of the least active user: one for each split."""
_CHOICES = 2  # stream of random numbers, apart from those of the world and the views


@dataclass(frozen=True)
class SynthSettings:
    """What a synthetic catalogue is made from.

    Attributes:
        num_items: Items.
        num_users: Users.
        num_interactions: Interactions of all splits together.
        num_modalities: Modalities, named ``modality_0``, ``modality_1`` ...
        dim: Width of a modality's features.
        corrupted_share: Share of feature rows, per modality, that are noise alone.
        missing_share: Share of feature rows, per modality, that are missing.
        seed: Seed of everything.
    """

    num_items: int
    num_users: int
    num_interactions: int
    num_modalities: int = 2
    dim: int = 64
    corrupted_share: float = 0.1
    missing_share: float = 0.05
    seed: int = 0


def synthesize(settings: SynthSettings, out: Path) -> Catalog:
    """Writes a synthetic catalogue to ``out``.

    Raises:
        UserError: If a size or share is not possible, or ``out`` cannot be written.
    """
    _check(settings)
    world = World(settings.num_items, settings.seed)
    with writing_catalog(out, {"reader": "synth", **asdict(settings)}, {}) as writer:
        _write_entities(writer, settings)
        _write_features(writer, settings, world)
        with StageProgress("synth", total=settings.num_interactions, unit="interactions") as bar:
            for done in _write_interactions(writer, settings, world):
                bar.update(done)
    return Catalog.open(out)


def _check(settings: SynthSettings) -> None:
    least = MIN_PER_USER * settings.num_users
    most = settings.num_users * (settings.num_items // 10)
    if not least <= settings.num_interactions <= most:
        raise UserError(
            f"--interactions is {settings.num_interactions}, must be from {least} to {most} "
            f"({MIN_PER_USER} to a tenth of the items per user)"
        )
    if settings.corrupted_share + settings.missing_share > 1:
        raise UserError(
            f"--corrupted-share {settings.corrupted_share} and --missing-share "
            f"{settings.missing_share} make more than 1"
        )


def _blocks(total: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, total, size):
        yield start, min(start + size, total)


def _write_entities(writer: CatalogWriter, settings: SynthSettings) -> None:
    totals: dict[Entities, int] = {"users": settings.num_users, "items": settings.num_items}
    for entities, total in totals.items():
        for start, stop in _blocks(total, ENTITIES_PER_BLOCK):
            writer.add_entities(entities, pa.table({"raw_id": pa.array(np.arange(start, stop))}))


def _write_interactions(
    writer: CatalogWriter, settings: SynthSettings, world: World
) -> Iterator[int]:
    """Yields the number of interactions drawn so far."""
    mean = settings.num_interactions / settings.num_users
    done = 0
    for start, stop in _blocks(settings.num_users, max(1, int(INTERACTIONS_PER_BLOCK / mean))):
        rng = np.random.default_rng([settings.seed, _CHOICES, start])
        wanted = round(stop * mean) - round(start * mean)
        num_choices = draw_activity(rng, stop - start, wanted, MIN_PER_USER)
        users, items = draw_choices(rng, world, num_choices)
        labels = split_by_ratio(np.bincount(users, minlength=stop - start), RATIOS)
        # One sort of one integer per interaction orders by user, then item.
        keys = np.sort((users * world.num_items + items) * len(SPLITS) + labels)
        keys, labels = np.divmod(keys, len(SPLITS))
        for label, split in enumerate(SPLITS):
            users, items = np.divmod(keys[labels == label], world.num_items)
            writer.add_interactions(split, (users + start).astype(np.int32), items.astype(np.int32))
        done += len(keys)
        yield done


def _write_features(writer: CatalogWriter, settings: SynthSettings, world: World) -> None:
    views = Views(world, settings.num_modalities, settings.dim)
    total = settings.num_modalities * settings.num_items
    with StageProgress("synth features", total, unit="rows") as bar:
        for modality in range(settings.num_modalities):
            present = np.empty(settings.num_items, dtype=bool)
            blocks = _feature_blocks(settings, views, modality, present)
            counted = _counted(blocks, bar, modality * settings.num_items)
            writer.add_features(f"modality_{modality}", counted, present)


def _counted(
    blocks: Iterable[NDArray[Any]], bar: StageProgress, done: int
) -> Iterator[NDArray[Any]]:
    """The same blocks; the progress line is told of each."""
    for block in blocks:
        yield block
        done += len(block)
        bar.update(done)


def _feature_blocks(
    settings: SynthSettings, views: Views, modality: int, present: NDArray[np.bool_]
) -> Iterator[NDArray[Any]]:
    """Yields blocks of rows, and fills in which rows are ``present``."""
    for start, stop in _blocks(settings.num_items, BLOCK_ROWS):
        block, present[start:stop] = views.draw_view(
            modality, start, stop, settings.corrupted_share, settings.missing_share
        )
        yield block.astype(np.float16)
