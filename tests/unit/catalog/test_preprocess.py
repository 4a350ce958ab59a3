import re
from dataclasses import replace

import numpy as np
import pytest
from sklearn.decomposition import PCA

from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.features import RowBlocks
from egra_dist.catalog.mmrec import ingest_mmrec
from egra_dist.catalog.preprocess import fit, preprocess, write_features
from egra_dist.config import FeatureSettings
from egra_dist.errors import UserError


@pytest.fixture
def values():
    """Correlated columns far from zero, ``[500, 12]``; every seventh row is missing."""
    rng = np.random.default_rng(5)
    rows = (rng.normal(size=(500, 12)) @ rng.normal(size=(12, 12)) + 30).astype(np.float32)
    rows[::7] = 0
    return rows


def run(values, settings, seed=0, modality="text", values_per_block=1 << 20):
    present = values.any(axis=1)
    blocks = RowBlocks(values, values_per_block=values_per_block)
    done = preprocess(blocks, present, settings, modality, seed=seed)
    return np.concatenate(list(done.blocks)), present, done


def test_centring_takes_the_mean_of_present_rows_away(values):
    out, present, done = run(values, FeatureSettings(center=True))
    expected = values[present] - values[present].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(out[present], expected, atol=1e-5)
    assert not out[~present].any()
    assert (out.dtype, done.explained_variance) == (np.float32, 1.0)


def test_whitened_columns_are_uncorrelated_with_variance_1(values):
    out, present, _ = run(values, FeatureSettings(whiten=True))
    here = out[present].astype(np.float64)
    np.testing.assert_allclose(np.cov(here.T), np.eye(12), atol=1e-5)
    np.testing.assert_allclose(here.mean(axis=0), 0, atol=1e-5)
    assert not out[~present].any()


def test_whitening_leaves_directions_without_variance_zero(values):
    twice = np.concatenate([values, values[:, :3]], axis=1)  # rank 12 of 15 columns
    out, present, _ = run(twice, FeatureSettings(whiten=True))
    np.testing.assert_allclose(np.cov(out[present].T), np.diag([1.0] * 12 + [0.0] * 3), atol=1e-4)


@pytest.mark.parametrize("whiten", [False, True])
def test_pca_is_that_of_scikit_learn(values, whiten):
    out, present, done = run(values, FeatureSettings(width=4, whiten=whiten))
    reference = PCA(4, whiten=whiten, svd_solver="full")
    expected = reference.fit_transform(values[present].astype(np.float64))
    signs = np.sign((expected * out[present]).sum(axis=0))  # of an axis, is arbitrary
    np.testing.assert_allclose(out[present] * signs, expected, atol=1e-4)
    assert done.explained_variance == pytest.approx(reference.explained_variance_ratio_.sum())
    assert out.shape == (500, 4)


def test_each_component_has_its_largest_entry_positive(values):
    settings = FeatureSettings(width=4)
    directions = fit(RowBlocks(values), values.any(axis=1), settings).directions
    assert (directions[np.abs(directions).argmax(axis=0), range(4)] > 0).all()


@pytest.mark.parametrize(
    "settings",
    [
        FeatureSettings(center=True),
        FeatureSettings(width=5, whiten=True),
        FeatureSettings(corrupt_share=0.3, corrupt_by="shuffle"),
        FeatureSettings(corrupt_share=0.3, corrupt_by="noise"),
        FeatureSettings(corrupt_share=0.3, corrupt_by="noise", width=3),
        FeatureSettings(corrupt_share=0.3, corrupt_by="remove", center=True),
    ],
)
def test_the_size_of_blocks_does_not_matter(values, settings):
    whole, _, _ = run(values, settings)
    parts, _, _ = run(values, settings, values_per_block=17 * 12)
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-5)


def test_shuffle_exchanges_exactly_the_share_among_each_other(values):
    out, present, done = run(values, FeatureSettings(corrupt_share=0.25))
    changed = (out != values).any(axis=1)
    assert changed.sum() == done.num_corrupted == round(0.25 * present.sum())
    assert not changed[~present].any()
    old, new = values[changed], out[changed]
    assert sorted(map(tuple, old)) == sorted(map(tuple, new))


def test_everything_may_be_exchanged_and_one_alone_may_not(values):
    out, present, done = run(values, FeatureSettings(corrupt_share=1))
    assert (out != values).any(axis=1).sum() == done.num_corrupted == present.sum()
    out, _, done = run(values, FeatureSettings(corrupt_share=0.002))
    assert done.num_corrupted == 0
    np.testing.assert_array_equal(out, values)


def test_removed_rows_are_those_that_would_be_spoilt_and_count_as_missing(values):
    spoilt, present, _ = run(values, FeatureSettings(corrupt_share=0.3))
    out, _, done = run(values, FeatureSettings(corrupt_share=0.3, corrupt_by="remove"))
    gone = (spoilt != values).any(axis=1)
    assert done.num_corrupted == gone.sum() == round(0.3 * present.sum())
    assert not out[gone].any()
    np.testing.assert_array_equal(out[~gone], values[~gone])
    np.testing.assert_array_equal(done.present, present & ~gone)
    np.testing.assert_array_equal(present, values.any(axis=1))


def test_the_mean_is_of_rows_that_were_not_removed(values):
    settings = FeatureSettings(corrupt_share=0.3, corrupt_by="remove", center=True)
    out, _, done = run(values, settings)
    left = done.present
    np.testing.assert_allclose(out[left], values[left] - values[left].mean(axis=0), atol=1e-4)
    assert not out[~left].any()


def test_noise_has_the_mean_and_deviation_of_the_columns():
    rng = np.random.default_rng(0)
    values = rng.normal(3, [1, 5, 20], size=(20_000, 3)).astype(np.float32)
    values[:4000] = 0
    out, present, done = run(values, FeatureSettings(corrupt_share=0.5, corrupt_by="noise"))
    changed = (out != values).any(axis=1)
    assert changed.sum() == done.num_corrupted == 8000
    assert not changed[~present].any()
    np.testing.assert_allclose(out[changed].std(axis=0), values[present].std(axis=0), rtol=0.05)
    error = np.abs(out[changed].mean(axis=0) - values[present].mean(axis=0))
    assert (error < 4 * values[present].std(axis=0) / np.sqrt(8000)).all()
    assert np.abs(np.corrcoef(out[changed].T, values[changed].T)[:3, 3:]).max() < 0.05


@pytest.mark.parametrize("by", ["shuffle", "noise", "remove"])
def test_seed_and_modality_choose_what_is_spoilt(values, by):
    settings = FeatureSettings(corrupt_share=0.3, corrupt_by=by)
    first, _, _ = run(values, settings, seed=1)
    again, _, _ = run(values, settings, seed=1)
    np.testing.assert_array_equal(first, again)
    spoilt = set(np.flatnonzero((first != values).any(axis=1)))
    for other in (run(values, settings, seed=2), run(values, settings, seed=1, modality="image")):
        assert spoilt != set(np.flatnonzero((other[0] != values).any(axis=1)))


@pytest.mark.parametrize("by", ["shuffle", "noise", "remove"])
def test_corruption_keeps_float16(values, by):
    settings = FeatureSettings(corrupt_share=0.3, corrupt_by=by)
    out, _, _ = run(values.astype(np.float16), settings)
    assert out.dtype == np.float16
    out, _, _ = run(values.astype(np.float16), FeatureSettings(center=True, corrupt_share=0.3))
    assert out.dtype == np.float32


def test_a_modality_that_nobody_has_stays_zero():
    values = np.zeros((5, 3), dtype=np.float32)
    settings = FeatureSettings(whiten=True, corrupt_share=0.5, corrupt_by="noise")
    out, _, done = run(values, settings)
    assert not out.any()
    assert done.num_corrupted == 0


@pytest.mark.parametrize(
    ("shape", "width", "message"),
    [
        ((20, 12), 13, "features.width = 13: modality text has 12 columns, at most 12 are allowed"),
        ((3, 12), 4, "features.width = 4: modality text is known of 3 items, at most 3 are"),
    ],
)
def test_too_wide(shape, width, message):
    with pytest.raises(UserError, match=re.escape(message)):
        run(np.ones(shape, np.float32), FeatureSettings(width=width))


def test_too_wide_for_the_rows_that_were_not_removed():
    settings = FeatureSettings(width=4, corrupt_share=0.5, corrupt_by="remove")
    with pytest.raises(UserError, match="is known of 3 items, at most 3 are allowed"):
        run(np.ones((6, 12), np.float32), settings)


@pytest.fixture
def catalog(mmrec_folder, tmp_path, values) -> Catalog:
    mmrec_folder.save_features(values, "text")
    mmrec_folder.save_features(np.roll(values, 3, axis=0).astype(np.float16), "image")
    return ingest_mmrec(mmrec_folder.path, tmp_path / "catalog")


def read(catalog, folder, name):
    return replace(catalog, features_folder=folder).features(name)


def test_write_features_writes_and_counts_every_modality(catalog, tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    facts = write_features(catalog, FeatureSettings(width=6, corrupt_share=0.1), 3, folder)
    assert sorted(facts) == ["image", "text"]
    for name, counts in facts.items():
        written, raw = (
            read(catalog, folder, name),
            catalog.features(name),
        )
        assert written.values.shape == (500, counts["dim"]) == (500, 6)
        np.testing.assert_array_equal(written.present, raw.present)
        assert counts["num_missing"] == (~raw.present).sum() == 72
        assert counts["num_corrupted"] == 43
        assert 0.5 < counts["explained_variance"] < 1


def test_write_features_marks_removed_rows_as_missing(catalog, tmp_path):
    settings = FeatureSettings(corrupt_share=0.1, corrupt_by="remove")
    facts = write_features(catalog, settings, 3, tmp_path)
    for name, counts in facts.items():
        written = read(catalog, tmp_path, name)
        assert (counts["num_missing"], counts["num_corrupted"]) == (72 + 43, 43)
        np.testing.assert_array_equal(written.present, written.values.any(axis=1))
        assert (~written.present).sum() == counts["num_missing"]


def test_write_features_alone_copies(catalog, tmp_path):
    facts = write_features(catalog, FeatureSettings(), 0, tmp_path)
    for name in catalog.modalities:
        written, raw = (
            read(catalog, tmp_path, name),
            catalog.features(name),
        )
        np.testing.assert_array_equal(written.values, raw.values)
        assert written.values.dtype == raw.values.dtype
        assert facts[name]["num_corrupted"] == 0
        assert facts[name]["explained_variance"] == 1.0


def test_ingest_projects_and_says_so_in_digest_and_manifest(mmrec_folder, catalog, tmp_path):
    settings = FeatureSettings(width=4)
    narrow = ingest_mmrec(mmrec_folder.path, tmp_path / "narrow", preprocessing=settings)
    facts = write_features(catalog, settings, 0, tmp_path)
    assert narrow.digest != catalog.digest
    for name in catalog.modalities:
        np.testing.assert_array_equal(
            narrow.features(name).values,
            read(catalog, tmp_path, name).values,
        )
        manifest = narrow.manifest.counts["modalities"][name]
        assert manifest["dim"] == 4
        assert manifest["explained_variance"] == facts[name]["explained_variance"]


def test_ingest_names_its_own_option(mmrec_folder, tmp_path, values):
    mmrec_folder.save_features(values)
    with pytest.raises(UserError, match="--pca 500: modality text has 12 columns, at most 12 are"):
        ingest_mmrec(mmrec_folder.path, tmp_path / "out", preprocessing=FeatureSettings(width=500))
    assert not (tmp_path / "out").exists()
