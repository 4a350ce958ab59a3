"""Features of texts and images, encoded by actors of Ray Data, as a user asks for them."""

import re
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from egra_dist.catalog.events import EventSettings, ingest_events
from egra_dist.catalog.items import ItemOptions
from egra_dist.errors import UserError
from egra_dist.featurize.encode import Placement
from egra_dist.featurize.run import FeaturizeSettings, featurize

ENCODERS = """
from pathlib import Path
import numpy as np
from egra_dist.errors import UserError

HERE = Path(__file__).parent

def lengths():
    def encode(texts):
        with (HERE / "log").open("a") as log:
            log.writelines(f"{text}\\n" for text in texts)
        if "stop" in texts and (HERE / "stop").exists():
            raise UserError("told to stop")
        return np.array([[len(text), text.count("a"), 1] for text in texts])
    return encode

def colors():
    return lambda images: np.stack([np.asarray(image).mean(axis=(0, 1)) for image in images])
"""
TITLES = [f"title {'a' * (row % 7)} of {row}" for row in range(50)]
PLACEMENT = Placement(concurrency=2, batch_size=4)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "test_featurize_encoders.py").write_text(ENCODERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("test_featurize_encoders", None)


def settings(kind, column):
    name = "lengths" if kind == "text" else "colors"
    return FeaturizeSettings(
        kind, column, f"test_featurize_encoders:{name}", dtype="float32", rows_per_range=10
    )


def write_items(folder, titles, **columns):
    ids = [f"v{row}" for row in range(len(titles))]
    pq.write_table(pa.table({"item_id": ids, "title": titles, **columns}), folder / "items.parquet")
    return folder / "items.parquet"


def encoded(folder):
    """The texts that were encoded since the last call."""
    lines = (folder / "log").read_text().splitlines() if (folder / "log").exists() else []
    (folder / "log").unlink(missing_ok=True)
    return lines


def expected(titles):
    return [[len(t), t.count("a"), 1] if t and t.strip() else [0, 0, 0] for t in titles]


def test_texts_with_interruption_and_growth(local_ray, folder, caplog):
    titles = [*TITLES[:23], None, " ", *TITLES[25:45], "stop", *TITLES[46:]]
    table, out = write_items(folder, titles), folder / "out" / "text"
    wanted = settings("text", "title")

    (folder / "stop").touch()
    with pytest.raises(UserError, match=r"^told to stop$"):
        featurize(table, out, wanted, PLACEMENT)
    assert not out.exists()
    kept = list((folder / "out" / ".text.partial" / "ranges").glob("*.npy"))
    encoded(folder)

    (folder / "stop").unlink()
    artifact = featurize(table, out, wanted, PLACEMENT)
    again = encoded(folder)
    assert artifact.manifest.counts["num_encoded"] == 50 - 10 * len(kept)
    assert len(again) == len(set(again))
    assert sorted(path.name for path in out.parent.iterdir()) == ["text"]
    np.testing.assert_array_equal(np.load(out / "features.npy"), expected(titles))
    assert pq.read_table(out / "ids.parquet")["item_id"].to_pylist() == [f"v{i}" for i in range(50)]
    assert artifact.manifest.counts["num_missing"] == 2
    assert re.search(r"2 of 50 items have no text .* first of them 'v23', 'v24'", caplog.text)

    featurize(table, out, wanted, PLACEMENT)
    assert encoded(folder) == []
    grown = [*titles, "one more"]
    artifact = featurize(write_items(folder, grown), out, wanted, PLACEMENT)
    assert encoded(folder) == ["one more"]
    assert artifact.manifest.counts["num_encoded"] == 1
    np.testing.assert_array_equal(np.load(out / "features.npy"), expected(grown))

    with pytest.raises(UserError, match="none of the 2 items has a text"):
        featurize(write_items(folder, pa.array([None, ""])), folder / "none", wanted, PLACEMENT)


def test_images_and_ingest(local_ray, folder, caplog):
    for row in range(12):
        Image.new("RGB", (4, 4), (row + 1, 2 * row, 3)).save(folder / f"{row}.png")
    (folder / "3.png").write_bytes(b"no image")
    paths = [f"{row}.png" for row in range(12)]
    paths[5], paths[6] = None, "absent.png"
    table, out = write_items(folder, TITLES[:12], path=paths), folder / "image"
    featurize(table, out, settings("image", "path"), PLACEMENT)

    missing = {3, 5, 6}
    colors = [[0, 0, 0] if row in missing else [row + 1, 2 * row, 3] for row in range(12)]
    np.testing.assert_array_equal(np.load(out / "features.npy"), colors)
    assert re.search(
        r"3 of 12 items have no readable image .* 'v3' \(3.png\), 'v5', 'v6' \(absent.png\)",
        caplog.text,
    )

    pairs = {"user": np.repeat(["ann", "bob"], 12), "item": [f"v{row}" for row in range(12)] * 2}
    pq.write_table(pa.table(pairs), folder / "events.parquet")
    options = ItemOptions(
        features={"image": str(out / "features.npy")}, feature_ids={"": out / "ids.parquet"}
    )
    catalog = ingest_events(
        folder / "events.parquet", folder / "catalog",
        EventSettings("user", "item", k_core=0), options,
    )  # fmt: skip
    rows = [int(raw_id[1:]) for raw_id in catalog.raw_ids("items").to_pylist()]
    image = catalog.features("image")
    np.testing.assert_array_equal(image.values, np.array(colors)[rows])
    assert image.present.tolist() == [row not in missing for row in rows]
