"""Pictures for the documentation, of real trainings: ``make screenshots``.

A small search is run and compared; MLflow's page and the page of ``compare`` are photographed. With
``--folder`` what is there already is not run again.
"""

import argparse
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.browser import find_chromium, open_page
from tests.mlflow_page import mlflow_server, open_runs

IMAGES = Path("docs/images")
SPACE = {
    "max_concurrent": 2,
    "scheduler": {"name": "none"},
    "space": {
        "train.alignment.ramp": {"grid": ["constant", "linear", "cosine"]},
        "seed": {"grid": [0, 1, 2]},
    },
}
SIZES = {"items": 800, "users": 1600, "interactions": 16_000}
QUICK = {
    "pretrain.max_epochs": 6,
    "train.max_epochs": 12,
    "train.batch_size": 512,
    "train.alignment.lambda_max": 0.05,
    "tracking.log_every_steps": 5,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where catalogue and search go")
    folder = parser.parse_args().folder
    if not find_chromium():
        sys.exit("no Chromium on the PATH; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (folder or Path(temporary)).resolve()
        prepare(folder)
        IMAGES.mkdir(parents=True, exist_ok=True)
        photograph_comparison(folder / "comparison" / "comparison.html")
        photograph_mlflow(folder / "search")


def prepare(folder: Path) -> None:
    """Runs what is not yet there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    catalog, search = folder / "videos", folder / "search"
    if not catalog.exists():
        egra_dist("synth", "--out", catalog, *(f"--{name}={n}" for name, n in SIZES.items()))
    settings = (f"--set={name}={value}" for name, value in QUICK.items())
    base = ("--catalog", catalog, "--space", folder / "space.yaml", "--out", search)
    egra_dist("sweep", "configs/demo.yaml", *base, *settings)
    egra_dist("compare", "--sweep", search, "--out", folder / "comparison", "--log")


def egra_dist(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "egra_dist", *map(str, arguments)], check=True)


def photograph_comparison(html: Path) -> None:
    """The upper part of the page that ``compare`` writes."""
    with open_page(1100, 900, scale=1.3) as page:
        page.goto(html.as_uri())
        page.wait_for_text("Cost")
        end = page.run("[...document.querySelectorAll('figure')][0].getBoundingClientRect().bottom")
        page.screenshot(IMAGES / "comparison.png", height=int(end) + 10)


def photograph_mlflow(search: Path) -> None:
    """Trials side by side in MLflow's charts, and the figures of one of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = f"sqlite:///{search}/mlflow.db"
    with mlflow_server(search, port, store=store) as uri, open_page(1500, 950) as page:
        open_runs(page, uri, "tags.trial = 'finished'", "CHART")
        page.wait_for_text("trial 0008")
        page.screenshot(IMAGES / "mlflow.png")


if __name__ == "__main__":
    main()
