import dataclasses
import filecmp

import numpy as np
import pytest

from egra_dist.catalog import synth
from egra_dist.catalog.catalog import SPLITS, Catalog
from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.catalog.synth_taste import World, draw_activity, draw_zipf
from egra_dist.errors import UserError

SMALL = SynthSettings(num_items=600, num_users=400, num_interactions=4000, dim=16)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Catalog:
    return synthesize(SMALL, tmp_path_factory.mktemp("synth") / "catalog")


def all_interactions(catalog):
    users, items = zip(*(catalog.interactions(split) for split in SPLITS), strict=True)
    return np.concatenate(users).astype(np.int64), np.concatenate(items)


def test_sizes_are_as_asked(small):
    assert (small.num_users, small.num_items) == (400, 600)
    assert small.modalities == ("modality_0", "modality_1")
    num_interactions = sum(small.num_interactions(split) for split in SPLITS)
    assert num_interactions == pytest.approx(4000, rel=0.005)
    assert small.num_interactions("train") > 0.7 * 4000


def test_every_user_is_in_every_split_and_no_pair_twice(small):
    users, items = all_interactions(small)
    assert len(np.unique(users * small.num_items + items)) == len(users)
    for split in SPLITS:
        assert len(np.unique(small.interactions(split)[0])) == small.num_users


def test_interactions_are_sorted(small):
    for split in SPLITS:
        users, items = small.interactions(split)
        assert (np.diff(users.astype(np.int64) * small.num_items + items) > 0).all()


def test_popularity_and_activity_have_long_tails(small):
    users, items = all_interactions(small)
    popularity = np.sort(np.bincount(items, minlength=small.num_items))[::-1]
    assert popularity[:60].sum() > 0.25 * popularity.sum()
    assert np.median(popularity) < popularity.mean()
    activity = np.bincount(users)
    assert activity.min() >= synth.MIN_PER_USER
    assert activity.max() > 3 * activity.mean()


def test_popular_items_stand_anywhere(small):
    _, items = all_interactions(small)
    halves = np.bincount(items, minlength=small.num_items).reshape(2, -1).sum(axis=1)
    assert halves.max() / halves.sum() < 0.6


def test_shares_of_missing_and_corrupted_rows(tmp_path):
    settings = dataclasses.replace(
        SMALL, num_items=20_000, missing_share=0.2, corrupted_share=0.3, num_modalities=1
    )
    catalog = synthesize(settings, tmp_path / "catalog")
    features = catalog.features("modality_0")
    assert features.values.dtype == np.float16
    assert np.mean(~features.present) == pytest.approx(0.2, abs=0.02)
    np.testing.assert_array_equal(features.present, features.values.any(axis=1))
    # A corrupted row has the noise alone, a whole one the signal too.
    clean = synthesize(dataclasses.replace(settings, corrupted_share=0), tmp_path / "clean")
    same = (features.values == clean.features("modality_0").values).all(axis=1)
    assert np.mean(~same) == pytest.approx(0.3, abs=0.02)


def test_features_tell_which_items_belong_together(small):
    world = World(SMALL.num_items, SMALL.seed)
    genres, _ = world.places_of_niches(world.niches_of_items(np.arange(SMALL.num_items)))
    same_genre = genres[:, None] == genres
    np.fill_diagonal(same_genre, False)
    for modality in small.modalities:
        features = small.features(modality)
        values = features.values[features.present].astype(np.float32)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        cosine = values @ values.T
        related = same_genre[np.ix_(features.present, features.present)]
        assert cosine[related].mean() > cosine[~related].mean() + 0.05


def test_users_stay_within_few_genres(small):
    world = World(SMALL.num_items, SMALL.seed)
    genres, _ = world.places_of_niches(world.niches_of_items(np.arange(SMALL.num_items)))
    users, items = all_interactions(small)
    table = np.zeros((SMALL.num_users, world.num_genres))
    np.add.at(table, (users, genres[items]), 1)
    share_of_first = (table.max(axis=1) / table.sum(axis=1)).mean()
    shuffled = np.zeros_like(table)
    np.add.at(shuffled, (users, np.random.default_rng(0).permutation(genres[items])), 1)
    assert share_of_first > 1.3 * (shuffled.max(axis=1) / shuffled.sum(axis=1)).mean()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(small, tmp_path):
    again = synthesize(SMALL, tmp_path / "again")
    names = [
        str(path.relative_to(small.path)) for path in small.path.rglob("*.*") if path.is_file()
    ]
    assert len(names) > 8
    assert filecmp.cmpfiles(small.path, again.path, names, shallow=False)[0] == names
    other = synthesize(dataclasses.replace(SMALL, seed=1), tmp_path / "other")
    assert other.digest != small.digest == again.digest
    assert not np.array_equal(other.interactions("train")[1], small.interactions("train")[1])


def test_many_blocks_of_users(tmp_path, monkeypatch):
    monkeypatch.setattr(synth, "INTERACTIONS_PER_BLOCK", 1000)
    catalog = synthesize(SMALL, tmp_path / "catalog")
    users, _ = catalog.interactions("train")
    assert (np.diff(users) >= 0).all()
    assert len(np.unique(users)) == SMALL.num_users
    num_interactions = sum(catalog.num_interactions(split) for split in SPLITS)
    assert num_interactions == pytest.approx(4000, rel=0.005)


@pytest.mark.parametrize("exponent", [0.5, 0.8])
def test_zipf_draws_follow_the_power_law(exponent):
    sizes = np.full(200_000, 50)
    ranks = draw_zipf(np.random.default_rng(0), sizes, exponent)
    shares = np.bincount(ranks, minlength=50) / len(ranks)
    borders = np.arange(1, 52) ** (1 - exponent)
    expected = np.diff(borders) / (borders[-1] - borders[0])
    assert np.abs(shares - expected).max() < 4 * np.sqrt(expected.max() / len(ranks))


def test_activity_is_exact_in_sum():
    activity = draw_activity(np.random.default_rng(0), 1000, 12_345, least=3)
    assert activity.sum() == 12_345
    assert activity.min() >= 3


@pytest.mark.parametrize("num_items", [100, 600, 997])
def test_items_are_all_in_a_niche_and_can_be_drawn(num_items):
    world = World(num_items, seed=5)
    niches = world.niches_of_items(np.arange(num_items))
    sizes = np.bincount(niches, minlength=world.num_niches)
    assert sizes.max() - sizes.min() <= 1
    wanted = np.repeat(np.arange(world.num_niches), 300)
    items = world.draw_items(np.random.default_rng(0), wanted)
    np.testing.assert_array_equal(world.niches_of_items(items), wanted)
    assert len(np.unique(items)) == num_items


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_interactions": 1199}, "--interactions is 1199, must be from 1200 to 24000"),
        ({"num_interactions": 24_001}, "--interactions is 24001, must be from 1200 to 24000"),
        ({"corrupted_share": 0.6, "missing_share": 0.5}, "--corrupted-share 0.6 and --missing"),
    ],
)
def test_impossible_sizes_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        synthesize(dataclasses.replace(SMALL, **changes), tmp_path / "catalog")
    assert not list(tmp_path.iterdir())
