"""The world of a synthetic catalogue: which items belong together, and what users choose."""

from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

ITEMS_PER_NICHE = 20
INTERACTIONS_PER_NICHE = 4
"""A user takes up one more niche per so many interactions, two at least."""
NICHES_PER_USER_GENRE = 3
EXPLORED_SHARE = 0.1
"""Share of interactions that have nothing to do with the user's taste."""
ITEM_EXPONENT = 0.8
NICHE_EXPONENT = 0.5
ACTIVITY_SIGMA = 0.8

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """Items in niches, niches in genres; all of it follows from the number of items and a seed.

    The item of popularity rank ``r`` belongs to niche ``r % num_niches``, and stands there at
    rank ``r // num_niches``; niche ``n`` belongs to genre ``n % num_genres``. Dense indices are
    ranks under a permutation that needs no memory.
    """

    num_items: int
    seed: int

    @property
    def num_niches(self) -> int:
        """Number of niches."""
        return max(1, self.num_items // ITEMS_PER_NICHE)

    @property
    def num_genres(self) -> int:
        """Number of genres."""
        return max(1, round(self.num_niches**0.5))

    @cached_property
    def _affine(self) -> tuple[int, int]:
        rng = np.random.default_rng([self.seed, 0])
        factor, offset = (int(number) for number in rng.integers(1, self.num_items + 1, 2))
        while gcd(factor, self.num_items) > 1:
            factor += 1
        return factor, offset

    def indices_of_ranks(self, ranks: Indices) -> Indices:
        """Dense item indices of popularity ranks."""
        factor, offset = self._affine
        return (ranks * factor + offset) % self.num_items

    def ranks_of_indices(self, indices: Indices) -> Indices:
        """Popularity ranks of dense item indices."""
        factor, offset = self._affine
        return (indices - offset) * pow(factor, -1, self.num_items) % self.num_items

    def draw_items(self, rng: np.random.Generator, niches: Indices) -> Indices:
        """Draws an item (its dense index) of each niche by Zipf popularity."""
        sizes = (self.num_items - niches - 1) // self.num_niches + 1
        ranks = draw_zipf(rng, sizes, ITEM_EXPONENT) * self.num_niches + niches
        return self.indices_of_ranks(ranks)

    def draw_niches(self, rng: np.random.Generator, genres: Indices) -> Indices:
        """Draws a niche of each genre."""
        sizes = (self.num_niches - genres - 1) // self.num_genres + 1
        return draw_zipf(rng, sizes, NICHE_EXPONENT) * self.num_genres + genres


def draw_zipf(rng: np.random.Generator, sizes: Indices, exponent: float) -> Indices:
    """Draws ranks ``0 .. sizes - 1`` with probability about ``(rank + 1) ** -exponent``.

    Inverts the distribution function of the continuous power law on ``[1, size + 1)``, so that
    a draw costs the same whatever the size.
    """
    power = 1 - exponent
    top = (sizes + 1.0) ** power - 1
    ranks = (1 + top * rng.random(len(sizes))) ** (1 / power) - 1
    return np.minimum(ranks.astype(np.int64), sizes - 1)


def draw_activity(
    rng: np.random.Generator, num_users: int, num_interactions: int, least: int
) -> Indices:
    """How many interactions each user has: long-tailed, exact in sum: ``[num_users]``."""
    weights = rng.lognormal(sigma=ACTIVITY_SIGMA, size=num_users)
    borders = np.cumsum(weights) / weights.sum() * (num_interactions - least * num_users)
    return least + np.diff(np.round(borders).astype(np.int64), prepend=0)


def draw_choices(
    rng: np.random.Generator, world: World, num_choices: Indices
) -> tuple[Indices, Indices]:
    """Draws distinct items for users.

    Args:
        rng: Source of randomness.
        world: The items.
        num_choices: ``[num_users]``: how many items each user is to have.

    Returns:
        Users (ascending) and items, in random order within a user. A user whose tastes are
        exhausted has fewer items than wanted.
    """
    num_draws = num_choices * 2 + 8
    users = np.repeat(np.arange(len(num_choices)), num_draws)
    items = world.draw_items(rng, _draw_niches_of_users(rng, world, num_choices, users))
    is_first = _first_of_pair(users * world.num_items + items)
    users, items = users[is_first], items[is_first]
    is_wanted = _rank_within(users, len(num_choices)) < num_choices[users]
    users, items = users[is_wanted], items[is_wanted]
    order = np.argsort(users + rng.random(len(users)))
    return users, items[order]


def _draw_niches_of_users(
    rng: np.random.Generator, world: World, num_choices: Indices, users: Indices
) -> Indices:
    num_slots = 2 + num_choices // INTERACTIONS_PER_NICHE
    num_user_genres = 1 + (num_slots - 1) // NICHES_PER_USER_GENRE
    genres = draw_zipf(
        rng, np.full(num_user_genres.sum(), world.num_genres, dtype=np.int64), NICHE_EXPONENT
    )
    first_genre, first_slot = _starts(num_user_genres), _starts(num_slots)
    slot_users = np.repeat(np.arange(len(num_slots)), num_slots)
    slot_ranks = np.arange(len(slot_users)) - first_slot[slot_users]
    slot_genres = genres[first_genre[slot_users] + slot_ranks // NICHES_PER_USER_GENRE]
    slots = world.draw_niches(rng, slot_genres)
    niches = slots[first_slot[users] + draw_zipf(rng, num_slots[users], NICHE_EXPONENT)]
    explores = np.flatnonzero(rng.random(len(users)) < EXPLORED_SHARE)
    everywhere = np.full(len(explores), world.num_niches, dtype=np.int64)
    niches[explores] = draw_zipf(rng, everywhere, NICHE_EXPONENT)
    return niches


def _starts(counts: Indices) -> Indices:
    return np.cumsum(counts) - counts


def _first_of_pair(keys: Indices) -> NDArray[np.bool_]:
    """Marks the first occurrence of each key."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    is_first = np.ones(len(keys), dtype=bool)
    is_first[order[1:]] = ordered[1:] != ordered[:-1]
    return is_first


def _rank_within(users: Indices, num_users: int) -> Indices:
    counts = np.bincount(users, minlength=num_users)
    return np.arange(len(users)) - _starts(counts)[users]


@dataclass(frozen=True)
class Views:
    """Modalities as noisy linear views of the items' latent vectors."""

    world: World
    num_modalities: int
    dim: int
    latent_dim: int = 32
    niche_scale: float = 1.0
    item_scale: float = 0.5
    noise: float = 1.0

    def draw_latents(self, start: int, stop: int) -> NDArray[np.float32]:
        """Latent vectors ``[stop - start, latent_dim]`` of dense indices ``start:stop``."""
        niches = self.world.ranks_of_indices(np.arange(start, stop)) % self.world.num_niches
        rng = np.random.default_rng([self.world.seed, 1, start])
        own = rng.standard_normal((stop - start, self.latent_dim), dtype=np.float32)
        return self._niche_centres[niches] + self.item_scale * own

    @cached_property
    def _niche_centres(self) -> NDArray[np.float32]:
        rng = np.random.default_rng([self.world.seed, 2])
        shape = (self.world.num_niches, self.latent_dim)
        niches = rng.standard_normal(shape, dtype=np.float32)
        genres = rng.standard_normal((self.world.num_genres, self.latent_dim), dtype=np.float32)
        niches *= self.niche_scale
        niches += genres[np.arange(len(niches)) % self.world.num_genres]
        return niches

    @cached_property
    def _projections(self) -> NDArray[np.float32]:
        """``[num_modalities, latent_dim, dim]``; every modality sees some latents better."""
        rng = np.random.default_rng([self.world.seed, 3])
        shape = (self.num_modalities, self.latent_dim, self.dim)
        sharpness = rng.random((self.num_modalities, self.latent_dim, 1)) ** 2
        projections: NDArray[Any] = rng.standard_normal(shape) * sharpness
        return projections.astype(np.float32) / np.float32(self.latent_dim**0.5)

    def draw_view(
        self, rng: np.random.Generator, modality: int, latents: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Features ``[num_rows, dim]`` of one modality."""
        view = latents @ self._projections[modality]
        noise = rng.standard_normal(view.shape, dtype=np.float32)
        return view + np.float32(self.noise * view.std()) * noise
