"""Centres, whitens, shortens and (for tests of robustness) spoils features, in bounded memory.

Rows are read in blocks; mean and covariance are accumulated in float64 over the items that have
the modality, in two passes, so that a mean far from zero costs no precision.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.corruption import Corrupted, NoisyBlocks, column_mean, corrupt
from egra_dist.catalog.features import RowBlocks, with_present
from egra_dist.catalog.writer import CatalogWriter, write_npy
from egra_dist.config import FeatureSettings
from egra_dist.errors import UserError

Rows = RowBlocks | NoisyBlocks


@dataclass(frozen=True)
class Projection:
    """A linear map of feature rows: less the mean, then onto directions.

    Attributes:
        mean: ``float64 [dim]``.
        directions: ``float64 [dim, width]``, scaled when whitening; None: the axes themselves.
        explained_variance: Share of the variance that lies along the directions.
    """

    mean: NDArray[np.float64]
    directions: NDArray[np.float64] | None = None
    explained_variance: float = 1.0

    def apply(
        self, blocks: Iterable[NDArray[Any]], present: NDArray[np.bool_]
    ) -> Iterator[NDArray[np.float32]]:
        """Maps blocks ``[*, dim]`` to ``float32 [*, width]``; missing rows are zero."""
        for block, here in with_present(blocks, present):
            mapped = block - self.mean
            if self.directions is not None:
                mapped = mapped @ self.directions
            mapped[~here] = 0
            yield mapped.astype(np.float32)


@dataclass(frozen=True)
class Preprocessed:
    """The features of one modality as they are to be written.

    Attributes:
        blocks: Consecutive blocks ``[*, width]``, to be iterated once.
        present: ``bool [num_rows]``.
        num_corrupted: Number of spoilt rows.
        explained_variance: Share of the variance that is kept.
    """

    blocks: Iterable[NDArray[Any]]
    present: NDArray[np.bool_]
    num_corrupted: int = 0
    explained_variance: float = 1.0


def write_features(
    catalog: Catalog, settings: FeatureSettings, seed: int, folder: Path
) -> dict[str, Any]:
    """Writes every modality as the settings want it, for ``Catalog.features_folder``.

    Args:
        catalog: Whose features.
        settings: What happens to them.
        seed: Of the rows that are spoilt; each modality draws its own.
        folder: Takes ``<modality>.npy`` (float32; float16 where the catalogue has that and rows
            are not projected) and ``<modality>.present.npy``.

    Returns:
        By modality: ``dim``, ``num_missing``, ``num_corrupted``, ``explained_variance``.

    Raises:
        UserError: If ``width`` is more than a modality's columns or items.
    """
    facts = {}
    for modality in catalog.modalities:
        features = catalog.features(modality)
        done = preprocess(
            RowBlocks(features.values), features.present, settings, modality, seed=seed
        )
        dim, _ = write_npy(folder / f"{modality}.npy", done.blocks, len(features.present))
        np.save(folder / f"{modality}.present.npy", done.present)
        facts[modality] = {
            "dim": dim,
            "num_missing": int(np.count_nonzero(~done.present)),
            "num_corrupted": done.num_corrupted,
            "explained_variance": done.explained_variance,
        }
    return facts


def add_preprocessed(
    writer: CatalogWriter,
    modality: str,
    blocks: RowBlocks,
    present: NDArray[np.bool_],
    settings: FeatureSettings,
) -> None:
    """Adds one modality to a catalogue that is being written, as the settings want it.

    Raises:
        UserError: If ``width`` is more than its columns or items.
    """
    done = preprocess(blocks, present, settings, modality, option="--pca")
    facts = {} if settings.width is None else {"explained_variance": done.explained_variance}
    writer.add_features(modality, done.blocks, present, facts)


def preprocess(
    blocks: RowBlocks,
    present: NDArray[np.bool_],
    settings: FeatureSettings,
    modality: str,
    option: str = "features.width =",
    seed: int = 0,
) -> Preprocessed:
    """Spoils, then projects the rows of one modality.

    Args:
        blocks: The rows; a missing one is zero.
        present: ``bool [num_rows]``.
        settings: What happens to them.
        modality: Its name, for the message and for the seed.
        option: What the user calls the width.
        seed: Of the rows that are spoilt.

    Raises:
        UserError: If ``width`` is more than its columns or items.
    """
    spoilt = Corrupted(blocks, present, 0)
    if settings.corrupt_share > 0:
        own_seed = np.random.SeedSequence([seed, *modality.encode()])
        spoilt = corrupt(blocks, present, settings, own_seed)
    where = f"{option} {settings.width}: modality {modality}"
    _check_width(blocks, spoilt.present, settings, where)
    if not settings.projects:
        return Preprocessed(spoilt.rows, spoilt.present, spoilt.num_corrupted)
    projection = fit(spoilt.rows, spoilt.present, settings)
    mapped = projection.apply(spoilt.rows, spoilt.present)
    explained = projection.explained_variance
    return Preprocessed(mapped, spoilt.present, spoilt.num_corrupted, explained)


def fit(rows: Rows, present: NDArray[np.bool_], settings: FeatureSettings) -> Projection:
    """Finds the projection of the present rows that the settings ask for.

    Principal components are the eigenvectors of the covariance, largest eigenvalue first, each
    with its largest entry positive. Whitening divides by the deviation along them; directions
    without variance become zero.
    """
    mean = column_mean(rows, present)
    if settings.width is None and not settings.whiten:
        return Projection(mean)
    covariance = _covariance(rows, present, mean)
    total = float(covariance.trace())
    width = settings.width or rows.dim
    variances, vectors = scipy.linalg.eigh(
        covariance, subset_by_index=[rows.dim - width, rows.dim - 1], overwrite_a=True
    )
    variances, vectors = np.maximum(variances[::-1], 0), vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    directions = vectors * np.sign(vectors[largest, np.arange(width)])
    if settings.whiten:
        has_variance = variances > variances[0] * rows.dim * np.finfo(np.float64).eps
        directions *= np.where(has_variance, 1 / np.sqrt(np.where(has_variance, variances, 1)), 0)
    share = float(variances.sum()) / total if total else 1.0
    return Projection(mean, directions, min(1.0, share))


def _covariance(
    rows: Rows, present: NDArray[np.bool_], mean: NDArray[np.float64]
) -> NDArray[np.float64]:
    total = np.zeros((rows.dim, rows.dim))
    for block, here in with_present(rows, present):
        centred = block[here] - mean
        total += centred.T @ centred
    return total / max(1, int(np.count_nonzero(present)) - 1)


def _check_width(
    blocks: RowBlocks, present: NDArray[np.bool_], settings: FeatureSettings, where: str
) -> None:
    if settings.width is None:
        return
    if settings.width > blocks.dim:
        raise UserError(f"{where} has {blocks.dim} columns, at most {blocks.dim} are allowed")
    num_present = int(np.count_nonzero(present))
    if settings.width > num_present:
        raise UserError(
            f"{where} is known of {num_present} items, at most {num_present} are allowed"
        )
