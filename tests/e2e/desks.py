"""What a reader of a page has before they begin, beside the shop of the quickstart."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from egra_dist.catalog.mmrec import ingest_mmrec
from tests.e2e.documents import REPOSITORY

_TREE = ("Dockerfile", "configs", "docs", "egra_dist", "jobs", "pyproject.toml", "tests")
# Pages that begin with the first run of all.
_FRESH = ("README.md", "tracking.md")
_PICTURES = """
def colours():
    return lambda images: [image.resize((1, 1)).getpixel((0, 0)) for image in images]
"""
_SPEC = """{"model": "mgcn", "catalog": "catalogs/tiktok", "work": "runs/sampled",
"is_search": true, "seed": 0, "settings": {"train.model.name": "mgcn", "train.max_epochs": 1,
"train.propagation.mode": "sampled"}}"""


def lay_out(shop: Path, folder: Path, page: Path) -> None:
    """Copies the shop and the repository, so that nothing else is written to, and adds to them."""
    shutil.copytree(shop, folder, symlinks=True)
    (folder / "configs").unlink()
    for name in _TREE:
        source = REPOSITORY / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    if page.name in _FRESH:
        shutil.rmtree(folder / "runs")
    _add_data(folder)
    if page.name == "data.md":
        _add_photos(folder)


def _add_data(folder: Path) -> None:
    """A small data set by the name of a real one, and the shop's catalogue where pages have it."""
    source = folder / "raw" / "tiktok"
    source.mkdir(parents=True)
    random = np.random.default_rng(0)
    lines = ["userID\titemID\tx_label"]
    for user in range(300):
        for number, item in enumerate(random.choice(150, 8, replace=False)):
            lines.append(f"{user}\t{item}\t{(0, 1, 2)[max(0, number - 5)]}")
    (source / "tiktok.inter").write_text("\n".join(lines) + "\n")
    for modality in ("image", "audio"):
        features = random.standard_normal((150, 16)).astype(np.float32)
        np.save(source / f"{modality}_feat.npy", features)
    np.save(folder / "vectors.npy", random.standard_normal((2000, 32)).astype(np.float32))
    ingest_mmrec(source, folder / "catalogs" / "tiktok")
    shutil.copytree(folder / "catalogs" / "shop", folder / "catalogs" / "may")
    (folder / "mnt" / "runs").mkdir(parents=True)
    for name, there in (("tiktok", "tiktok"), ("shop", "catalog")):
        shutil.copytree(folder / "catalogs" / name, folder / "mnt" / there)
    (folder / "spec.json").write_text(_SPEC)


def _add_photos(folder: Path) -> None:
    """Brands and photos of the shop's first items; the others have none."""
    from PIL import Image

    items = pq.read_table(folder / "items.parquet")
    (folder / "photos").mkdir()
    for number in range(12):
        Image.new("RGB", (8, 8), (20 * number, 99, 0)).save(folder / "photos" / f"{number}.png")
    paths = [f"{number}.png" for number in range(len(items))]
    items = items.append_column("path", pa.array(paths))
    items = items.append_column("brand", pa.array(["Oak & Sons"] * len(items)))
    pq.write_table(items.append_column("item_id", items["item"]), folder / "items.parquet")
    (folder / "my_pictures.py").write_text(_PICTURES)
