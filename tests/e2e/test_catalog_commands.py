"""The verbs that make catalogues, as a user calls them."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egra_dist.catalog.catalog import SPLITS, Catalog

MMREC = ("ingest", "mmrec")
EVENTS = ("ingest", "events")


def egra_dist(*arguments):
    command = [sys.executable, "-c", "from egra_dist.cli import main; main()"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def events(tmp_path):
    pairs = [(f"u{user}", f"v{item}") for user in range(6) for item in range(6)]
    users, items = zip(*pairs, strict=True)
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"who": users, "what": items, "when": range(36)}), path)
    return path


def test_mmrec(refused, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "tiny.inter").write_text("userID\titemID\tx_label\n0\t0\t0\n0\t1\t1\n0\t2\t2\n")
    np.save(raw / "text_feat.npy", np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]], np.float16))
    out = tmp_path / "catalog"
    done = egra_dist(*MMREC, raw, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"{out}: 1 users, 3 items, 1 / 1 / 1 train / valid / test interactions; "
        f"modalities: text [2, 1 missing] ("
    )
    assert Catalog.open(out).num_items == 3

    line = refused(*MMREC, raw, "--out", out, "--time", "at", "--rows-in-order")
    assert line.endswith("--time at: not together with --rows-in-order")
    line = refused(*MMREC, raw, "--out", out, "--time", "at")
    assert line.endswith("no column 'at'; its columns are ['userID', 'itemID', 'x_label']")
    line = refused(*MMREC, raw, "--out", raw)
    assert line.endswith("raw: holds other files and no catalogue; give a new or empty folder")
    (raw / "tiny.inter").write_text("userID\titemID\tx_label\n0\t0\t0\n0\tb\t1\n")
    line = refused(*MMREC, raw, "--out", out)
    assert line.endswith("tiny.inter: line 3: itemID is 'b', must be a non-negative integer")
    assert Catalog.open(out).num_items == 3


def test_events_with_all_options(tmp_path, events):
    table = {"id": ["v0", "v1"], "title": ["First", "Second"], "vector": [[1.0, 2.0], [3.0, 4.0]]}
    pq.write_table(pa.table(table), tmp_path / "items.parquet")
    np.save(tmp_path / "image.npy", np.ones((1, 5), np.float32))
    (tmp_path / "ids.txt").write_text("v5\n")
    out = tmp_path / "catalog"
    done = egra_dist(
        *EVENTS, events, "--user", "who", "--item", "what", "--time", "when", "--out", out,
        "--k-core", 3, "--split", "last", "--seed", 7,
        "--items", tmp_path / "items.parquet", "--item-id", "id", "--feature", "text=vector",
        "--feature", f"image={tmp_path / 'image.npy'}",
        "--feature-ids", f"image={tmp_path / 'ids.txt'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "modalities: image [5, 5 missing], text [2, 4 missing]" in done.stdout
    catalog = Catalog.open(out)
    assert [catalog.num_interactions(split) for split in SPLITS] == [24, 6, 6]
    assert sorted(filter(None, catalog.item_column("title").to_pylist())) == ["First", "Second"]


def test_features_are_shortened_on_the_way_in(refused, tmp_path, events):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "text.npy", rng.normal(size=(5, 4)).astype(np.float16))
    (tmp_path / "ids.txt").write_text("v1\nv2\nv3\nv4\nv9\n")
    ingest = [*EVENTS, events, "--user", "who", "--item", "what", "--out", tmp_path / "catalog"]
    ingest += ["--feature", f"text={tmp_path / 'text.npy'}", "--feature-ids", tmp_path / "ids.txt"]
    done = egra_dist(*ingest, "--pca", 2, "--whiten")
    assert done.returncode == 0, done.stderr
    assert "modalities: text [2, 2 missing]" in done.stdout
    text = Catalog.open(tmp_path / "catalog").features("text")
    np.testing.assert_allclose(np.cov(text.values[text.present].T), np.eye(2), atol=1e-5)
    assert "--pca 5: modality text has 4 columns, at most 4 are" in refused(*ingest, "--pca", 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--user", "user"], "events.parquet: no column 'user'; its columns are ['who', 'what', "),
        (["--k-core", 7], "events.parquet: --k-core 7 leaves none of its 36 interactions"),
        (["--split", "last"], "--split last: needs the order of events, --time COL"),
        (["--ratios", "1,2"], "--ratios 1,2: must be three numbers such as .8,.1,.1"),
        (["--ratios", ".5,.1,.1"], "--ratios 0.5,0.1,0.1: must be train, valid, test shares that"),
        (["--feature", "text"], "--feature text: must be NAME=VALUE"),
        (["--feature", "a/b=x"], "--feature a/b=x: must be NAME=VALUE"),
        (["--feature", "a=x", "--feature", "a=y"], "--feature a=y: a was given before"),
    ],
)
def test_events_refused(refused, tmp_path, events, options, message):
    out = tmp_path / "catalog"
    line = refused(*EVENTS, events, "--user", "who", "--item", "what", "--out", out, *options)
    assert message in line
    assert list(tmp_path.iterdir()) == [events]


def test_synth(refused, tmp_path):
    out = tmp_path / "catalog"
    sizes = ["--items", 300, "--users", 200, "--interactions", 2000]
    done = egra_dist("synth", *sizes, "--modalities", 3, "--dim", 8, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{out}: 200 users, 300 items, ")
    assert Catalog.open(out).modalities == ("modality_0", "modality_1", "modality_2")
    line = refused("synth", *sizes[:4], "--interactions", 50, "--out", tmp_path / "other")
    assert "--interactions is 50, must be from 600 to 6000" in line


@pytest.mark.parametrize("verbs", [MMREC, EVENTS, ("synth",)])
def test_help_has_an_example(verbs):
    done = egra_dist(*verbs, "--help")
    assert done.returncode == 0
    assert f"Example: egra-dist {' '.join(verbs)}" in " ".join(done.stdout.split())


def test_making_a_catalogue_does_not_pay_for_heavy_imports(tmp_path):
    code = (
        "import sys; import egra_dist.cli.catalog, egra_dist.catalog.mmrec, "
        "egra_dist.catalog.events, egra_dist.catalog.synth; "
        "print([name for name in ('torch', 'ray', 'mlflow', 'torchrec') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
