"""The world of a synthetic catalogue: which items belong together, and what users choose."""

from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np
from numpy.typing import NDArray

ITEMS_PER_NICHE = 8
STYLE_DIM = 8
INTERACTIONS_PER_NICHE = 2
"""A user takes up one more niche per so many interactions, two at least."""
NICHES_PER_GENRE = 3
"""A user takes up one more genre per so many niches."""
NICHES_WEIGHED = 8
"""A niche is taken up as the best in style of so many that come along."""
STYLE_STRENGTH = 1.0
EXPLORED_SHARE = 0.1
"""Share of interactions that have nothing to do with the user's taste."""
ITEM_EXPONENT = 0.8
NICHE_EXPONENT = 0.6
GENRE_EXPONENT = 0.6
ACTIVITY_SIGMA = 0.8

Indices = NDArray[np.int64]
Vectors = NDArray[np.float32]


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
    def styles(self) -> Vectors:
        """Style of each niche ``[num_niches, STYLE_DIM]``: what it is like within its genre."""
        rng = np.random.default_rng([self.seed, 0])
        return rng.standard_normal((self.num_niches, STYLE_DIM), dtype=np.float32)

    @cached_property
    def _affine(self) -> tuple[int, int]:
        rng = np.random.default_rng([self.seed, 1])
        factor, offset = (int(number) for number in rng.integers(1, self.num_items + 1, 2))
        while gcd(factor, self.num_items) > 1:
            factor += 1
        return factor, offset

    def niches_of_items(self, items: Indices) -> Indices:
        """Niches of dense item indices."""
        factor, offset = self._affine
        ranks = (items - offset) * pow(factor, -1, self.num_items) % self.num_items
        return ranks % self.num_niches

    def draw_items(self, rng: np.random.Generator, niches: Indices) -> Indices:
        """Draws an item (its dense index) of each niche by Zipf popularity."""
        sizes = (self.num_items - niches - 1) // self.num_niches + 1
        ranks = draw_zipf(rng, sizes, ITEM_EXPONENT) * self.num_niches + niches
        factor, offset = self._affine
        return (ranks * factor + offset) % self.num_items

    def draw_niches(self, rng: np.random.Generator, genres: Indices) -> Indices:
        """Draws a niche of each genre by Zipf popularity."""
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
    users = np.repeat(np.arange(len(num_choices)), num_choices * 2 + 8)
    niches = _draw_tastes(rng, world, num_choices).draw_niches(rng, users)
    explores = np.flatnonzero(rng.random(len(users)) < EXPLORED_SHARE)
    niches[explores] = rng.integers(world.num_niches, size=len(explores))
    items = world.draw_items(rng, niches)

    is_first = _first_of_pair(users * world.num_items + items)
    users, items = users[is_first], items[is_first]
    is_wanted = _rank_within(users, len(num_choices)) < num_choices[users]
    users, items = users[is_wanted], items[is_wanted]
    order = np.argsort(users + rng.random(len(users)))
    return users, items[order]


@dataclass(frozen=True)
class _Tastes:
    """The niches each user has taken up: those of user ``u`` from ``starts[u]`` on."""

    starts: Indices
    counts: Indices
    niches: Indices

    def draw_niches(self, rng: np.random.Generator, users: Indices) -> Indices:
        """Draws one of each user's niches."""
        slots = (rng.random(len(users)) * self.counts[users]).astype(np.int64)
        return self.niches[self.starts[users] + slots]


def _draw_tastes(rng: np.random.Generator, world: World, num_choices: Indices) -> _Tastes:
    """Users take up niches of a few genres, those that are to their style."""
    num_niches = 2 + num_choices // INTERACTIONS_PER_NICHE
    num_genres = 1 + (num_niches - 1) // NICHES_PER_GENRE
    all_genres = np.full(num_genres.sum(), world.num_genres, dtype=np.int64)
    genres = draw_zipf(rng, all_genres, GENRE_EXPONENT)

    users = np.repeat(np.arange(len(num_choices)), num_niches)
    starts = _starts(num_niches)
    slots = np.arange(len(users)) - starts[users]
    slot_genres = genres[_starts(num_genres)[users] + slots // NICHES_PER_GENRE]
    coming = world.draw_niches(rng, np.repeat(slot_genres, NICHES_WEIGHED))
    coming = coming.reshape(-1, NICHES_WEIGHED)

    liked = rng.standard_normal((len(num_choices), STYLE_DIM), dtype=np.float32)
    fit = np.einsum("snd,sd->sn", world.styles[coming], liked[users])
    fit = STYLE_STRENGTH * fit + rng.gumbel(size=fit.shape).astype(np.float32)
    return _Tastes(starts, num_niches, coming[np.arange(len(coming)), fit.argmax(axis=1)])


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
