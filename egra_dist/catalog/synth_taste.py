"""The world of a synthetic catalogue: which items belong together, and what users choose."""

from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np
from numpy.typing import NDArray

ITEMS_PER_NICHE = 12
INTERACTIONS_PER_INTEREST = 4
"""A user has one more interest per so many interactions."""
INTEREST_SPREAD = 0.1
"""Standard deviation of what a user chooses around an interest; a genre has length 1."""
EXPLORED_SHARE = 0.1
"""Share of interactions that have nothing to do with the user's interests."""
ITEM_EXPONENT = 1.1
GENRE_EXPONENT = 0.6
ACTIVITY_SIGMA = 0.8

Indices = NDArray[np.int64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class World:
    """Items in niches, niches in genres; all of it follows from the number of items and a seed.

    A genre is a torus of length 1, tiled by ``side * side`` niches. The item of popularity rank
    ``r`` belongs to niche ``r % num_niches``, and stands there at rank ``r // num_niches``. Dense
    indices are ranks under a permutation that needs no memory.
    """

    num_items: int
    seed: int

    @cached_property
    def side(self) -> int:
        """Number of niches along each direction of a genre."""
        return max(1, round((self.num_items / ITEMS_PER_NICHE) ** 0.25))

    @cached_property
    def num_genres(self) -> int:
        """Number of genres."""
        return max(1, self.num_items // (ITEMS_PER_NICHE * self.side**2))

    @cached_property
    def num_niches(self) -> int:
        """Number of niches."""
        return self.num_genres * self.side**2

    @cached_property
    def _affine(self) -> tuple[int, int]:
        rng = np.random.default_rng([self.seed, 0])
        factor, offset = (int(number) for number in rng.integers(1, self.num_items + 1, 2))
        while gcd(factor, self.num_items) > 1:
            factor += 1
        return factor, offset

    def niches_at(self, genres: Indices, points: NDArray[np.float64]) -> Indices:
        """Niches at points ``[num_points, 2]`` of genres; points wrap around."""
        cells = np.floor(points * self.side).astype(np.int64) % self.side
        return (genres * self.side + cells[:, 0]) * self.side + cells[:, 1]

    def places_of_niches(self, niches: Indices) -> tuple[Indices, NDArray[np.float64]]:
        """Genres of niches, and the points ``[num_niches, 2]`` at their centres."""
        genres, cells = np.divmod(niches, self.side**2)
        return genres, (np.stack(np.divmod(cells, self.side), axis=1) + 0.5) / self.side

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
        Users (ascending) and items, in random order within a user. A user whose interests are
        exhausted has fewer items than wanted.
    """
    users = np.repeat(np.arange(len(num_choices)), num_choices * 3 // 2 + 8)
    items = world.draw_items(rng, _draw_niches(rng, world, num_choices, users))
    is_first = _first_of_pair(users * world.num_items + items)
    users, items = users[is_first], items[is_first]
    is_wanted = _rank_within(users, len(num_choices)) < num_choices[users]
    users, items = users[is_wanted], items[is_wanted]
    order = np.argsort(users + rng.random(len(users)))
    return users, items[order]


def _draw_niches(
    rng: np.random.Generator, world: World, num_choices: Indices, users: Indices
) -> Indices:
    """Draws a niche for each entry of ``users``, near one of the user's interests."""
    num_interests = 1 + num_choices // INTERACTIONS_PER_INTEREST
    sizes = np.full(num_interests.sum(), world.num_genres, dtype=np.int64)
    genres = draw_zipf(rng, sizes, GENRE_EXPONENT)
    centres = rng.random((len(genres), 2))

    which = (rng.random(len(users)) * num_interests[users]).astype(np.int64)
    interests = _starts(num_interests)[users] + which
    points = centres[interests] + INTEREST_SPREAD * rng.standard_normal((len(users), 2))
    niches = world.niches_at(genres[interests], points)
    explores = np.flatnonzero(rng.random(len(users)) < EXPLORED_SHARE)
    niches[explores] = rng.integers(world.num_niches, size=len(explores))
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
