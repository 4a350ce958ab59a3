"""Spoils the features of a share of the items, to see how a model bears it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egra_dist.catalog.features import RowBlocks, with_present
from egra_dist.config import FeatureSettings


@dataclass(frozen=True)
class NoisyBlocks:
    """Blocks of rows of which some are Gaussian noise of the columns' mean and deviation.

    Attributes:
        blocks: The rows as they were.
        is_noise: ``bool [num_rows]``.
        mean: ``float64 [dim]``.
        deviation: ``float64 [dim]``.
        seed: Of the noise, which is the same whenever and in whatever blocks it is iterated.
    """

    blocks: RowBlocks
    is_noise: NDArray[np.bool_]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    seed: np.random.SeedSequence

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self.blocks.dim

    def __iter__(self) -> Iterator[NDArray[Any]]:
        rng = np.random.default_rng(self.seed)
        largest = float(np.finfo(self.blocks.dtype).max)
        for block, is_noise in with_present(self.blocks, self.is_noise):
            spoilt = np.array(block)
            noise = rng.standard_normal((int(is_noise.sum()), self.dim))
            spoilt[is_noise] = np.clip(self.mean + self.deviation * noise, -largest, largest)
            yield spoilt


@dataclass(frozen=True)
class Corrupted:
    """Rows of which some are spoilt.

    Attributes:
        rows: All rows as they are now.
        present: ``bool [num_rows]``: which items still have one.
        num_corrupted: Number of spoilt rows.
    """

    rows: RowBlocks | NoisyBlocks
    present: NDArray[np.bool_]
    num_corrupted: int


def corrupt(
    blocks: RowBlocks,
    present: NDArray[np.bool_],
    settings: FeatureSettings,
    seed: np.random.SeedSequence,
) -> Corrupted:
    """Spoils the rows of ``corrupt_share`` of the items that have the modality.

    Args:
        blocks: The rows.
        present: ``bool [num_rows]``; missing rows stay missing.
        settings: The share, and how.
        seed: Decides which rows, the same however they are spoilt, and what becomes of them.
    """
    which, how = seed.spawn(2)
    having = np.flatnonzero(present)
    num_corrupted = round(settings.corrupt_share * len(having))
    chosen = np.random.default_rng(which).permutation(having)[:num_corrupted]
    if settings.corrupt_by == "shuffle":
        return _exchange(blocks, present, chosen)
    if settings.corrupt_by == "remove":
        return _remove(blocks, present, chosen)
    is_noise = np.zeros(len(blocks), dtype=bool)
    is_noise[chosen] = True
    mean, deviation = column_moments(blocks, present)
    noisy = NoisyBlocks(blocks, is_noise, mean, deviation, how)
    return Corrupted(noisy, present, num_corrupted)


def column_moments(
    blocks: RowBlocks | NoisyBlocks, present: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each column over the present rows, each ``[dim]``."""
    mean = column_mean(blocks, present)
    total = np.zeros(blocks.dim)
    for block, here in with_present(blocks, present):
        total += np.square(block[here] - mean).sum(axis=0)
    return mean, np.sqrt(total / max(1, int(np.count_nonzero(present))))


def column_mean(blocks: RowBlocks | NoisyBlocks, present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of each column over the present rows, ``[dim]``."""
    total = np.zeros(blocks.dim)
    for block, here in with_present(blocks, present):
        total += block[here].sum(axis=0, dtype=np.float64)
    return total / max(1, int(np.count_nonzero(present)))


def _exchange(
    blocks: RowBlocks, present: NDArray[np.bool_], chosen: NDArray[np.int64]
) -> Corrupted:
    """Gives each chosen item, in random order, the row of the next: none keeps its own."""
    if len(chosen) < 2:  # one alone has nobody to change with
        return Corrupted(blocks, present, 0)
    rows = _row_numbers(blocks)
    rows[chosen] = rows[np.roll(chosen, 1)]
    return Corrupted(replace(blocks, rows=rows), present, len(chosen))


def _remove(blocks: RowBlocks, present: NDArray[np.bool_], chosen: NDArray[np.int64]) -> Corrupted:
    """Takes the modality of each chosen item away."""
    rows, left = _row_numbers(blocks), np.array(present)
    rows[chosen], left[chosen] = -1, False
    return Corrupted(replace(blocks, rows=rows), left, len(chosen))


def _row_numbers(blocks: RowBlocks) -> NDArray[np.integer]:
    """Which row comes when, to be changed."""
    return np.arange(len(blocks)) if blocks.rows is None else np.array(blocks.rows)
