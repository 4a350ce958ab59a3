"""Modalities of a synthetic catalogue: noisy views of what the items are."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from egra_dist.catalog.synth_taste import Vectors, World

GENRE_DIM = 8
POINT_DIM = 4
LATENT_DIM = GENRE_DIM + POINT_DIM
ITEM_SCALE = 0.3
"""Spread of the items of a niche around its genre and point, which spread by 1."""
DIMMED = 0.3
"""How strongly a modality shows what another one shows clearly (with strength 1)."""
NOISE = 1.0
"""Spread of a view's noise over that of its signal."""
_LATENTS, _GENRES, _PROJECTIONS, _VIEWS = 10, 11, 12, 13  # streams of random numbers


@dataclass(frozen=True)
class Views:
    """Every modality sees the latent vectors of items through a projection of its own.

    A latent vector is the item's genre, beside the point of its niche there, both blurred.
    """

    world: World
    num_modalities: int
    dim: int

    def draw_view(
        self, modality: int, start: int, stop: int, corrupted_share: float, missing_share: float
    ) -> tuple[Vectors, NDArray[np.bool_]]:
        """Features of one modality for the dense indices ``start:stop``.

        Returns:
            Features ``[stop - start, dim]``, noise alone where corrupted and zero where missing,
            and whether each item has the modality, ``bool [stop - start]``.
        """
        rng = np.random.default_rng([self.world.seed, _VIEWS, modality, start])
        signal = self._draw_latents(start, stop) @ self._projections[modality]
        scale = signal.std()
        fates = rng.random(stop - start)
        is_missing = fates < missing_share
        signal[~is_missing & (fates < missing_share + corrupted_share)] = 0
        signal += NOISE * scale * rng.standard_normal(signal.shape, dtype=np.float32)
        signal[is_missing] = 0
        return signal, ~is_missing

    def _draw_latents(self, start: int, stop: int) -> Vectors:
        niches = self.world.niches_of_items(np.arange(start, stop))
        genres, points = self.world.places_of_niches(niches)
        angles = 2 * np.pi * points
        on_torus = np.hstack([np.cos(angles), np.sin(angles)]) * 2**0.5
        latents = np.hstack([self._genres[genres], on_torus], dtype=np.float32)
        rng = np.random.default_rng([self.world.seed, _LATENTS, start])
        own = rng.standard_normal(latents.shape, dtype=np.float32)
        return latents + np.float32(ITEM_SCALE) * own

    @cached_property
    def _genres(self) -> Vectors:
        rng = np.random.default_rng([self.world.seed, _GENRES])
        return rng.standard_normal((self.world.num_genres, GENRE_DIM), dtype=np.float32)

    @cached_property
    def _projections(self) -> Vectors:
        """``[num_modalities, latent_dim, dim]``; modalities see different latents clearly."""
        rng = np.random.default_rng([self.world.seed, _PROJECTIONS])
        shape = (self.num_modalities, LATENT_DIM, self.dim)
        latents, modalities = np.arange(LATENT_DIM), np.arange(self.num_modalities)
        is_clear = latents % self.num_modalities == modalities[:, None]
        clarity = np.where(is_clear, 1, DIMMED).astype(np.float32)
        return rng.standard_normal(shape, dtype=np.float32) * clarity[:, :, None]
