"""What catalogues of millions of items take: made, and their graph built, out of core.

    python -m tests.benchmarks.scale [--items 1000000] [--folder FOLDER] [--train] [--write]

There are half as many users as items and ten interactions for each item, two modalities of width
64, and 10 neighbours of each item drawn at random: finding them is measured by
``tests.benchmarks.knn``. Every step is a process of its own, with one thread; its peak memory is
the kernel's ``VmHWM``, pages of memory-mapped files included. Figures are kept by size in a JSON
file of the folder; ``--write`` puts them into ``docs/scale.md``. What a step leaves is removed at
the end. ``--train`` trains some steps on sampled neighbourhoods before that, as
``tests.benchmarks.sampled`` does alone.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.document import replace_between

K = 10
MODALITIES = ("modality_0", "modality_1")
MARKERS = ("<!-- scale benchmark -->", "<!-- end of scale benchmark -->")


def synth(folder, num_items):
    """A synthetic catalogue."""
    from egra_dist.catalog.synth import SynthSettings, synthesize

    settings = SynthSettings(num_items, num_items // 2, 10 * num_items)
    catalog = synthesize(settings, folder / "catalog")
    return {"num_interactions": catalog.num_interactions("train")}


def behavior(folder, num_items):
    """``R`` and ``N(A)`` without item-item edges."""
    from egra_dist.catalog.catalog import Catalog
    from egra_dist.graph.behavior import write_behavior

    catalog = Catalog.open(folder / "catalog")
    return {"num_edges": 2 * write_behavior(catalog, folder / "graphs", folder / "graphs" / "work")}


def neighbors(folder, num_items):
    """Ten neighbours of each item, at random, in the place of those that a search would find."""
    from numpy.lib.format import open_memmap

    knn = folder / "knn"
    knn.mkdir()
    ids = open_memmap(knn / "neighbors.npy", "w+", np.int32, (num_items, K))
    scores = open_memmap(knn / "scores.npy", "w+", np.float32, (num_items, K))
    random = np.random.default_rng(0)
    for first in range(0, num_items, 1 << 18):
        rows = np.arange(first, min(first + (1 << 18), num_items))
        # Distinct, and never the row itself: steps around the circle of items.
        steps = np.cumsum(random.integers(1, num_items // K, (len(rows), K)), axis=1)
        ids[rows] = (rows[:, None] + steps) % num_items
        scores[rows] = 1
    (knn / "statistics.json").write_text("{}")
    return {}


def merge(folder, num_items):
    """``A_II``, the union of both directions, and ``N(A)`` with it."""
    from egra_dist.config import ItemGraphSettings
    from egra_dist.graph.item import write_merged

    return write_merged(folder / "graphs", folder / "knn", ItemGraphSettings(), folder / "merged")


def features(folder, num_items):
    """``S_m`` of both modalities: each item and nine others at random, as a search leaves them."""
    from numpy.lib.format import open_memmap

    from egra_dist.graph.csr import Csr

    for number, name in enumerate(MODALITIES):
        target = folder / "graphs" / "features" / name
        Csr.allocate(target, num_items, num_items * K, num_items, has_values=True)
        open_memmap(target / "indptr.npy", "r+")[:] = np.arange(num_items + 1) * K
        open_memmap(target / "values.npy", "r+")[:] = 1 / K
        columns = open_memmap(target / "indices.npy", "r+").reshape(num_items, K)
        random = np.random.default_rng(number + 1)
        for first in range(0, num_items, 1 << 18):
            rows = np.arange(first, min(first + (1 << 18), num_items))
            steps = np.cumsum(random.integers(1, num_items // K, (len(rows), K - 1)), axis=1)
            others = (rows[:, None] + steps) % num_items
            columns[rows] = np.sort(np.concatenate([rows[:, None], others], axis=1), axis=1)
    return {}


STEPS = {
    "synth": synth,
    "behavior": behavior,
    "neighbors": neighbors,
    "merge": merge,
    "features": features,
}
FAN_OUTS = (
    "train.propagation.user_item=[5,3]",
    "train.propagation.item_item=[3,2]",
    "train.propagation.modality_items=5",
    "train.propagation.feature_neighbors=3",
)
TRAINING_MARKERS = ("<!-- training benchmark -->", "<!-- end of training benchmark -->")
SHOWN = {"synth": "`synth`", "behavior": "behaviour graph", "merge": "item edges merged"}


def measure(step, folder, num_items):
    """Runs one step in this process and prints one line of JSON."""
    started = time.perf_counter()
    facts = STEPS[step](folder, num_items)
    user, system, *_ = os.times()
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20
    row = {"wall": time.perf_counter() - started, "cpu": user + system, "peak_gb": peak}
    print(json.dumps({**row, **facts}))


def run_step(step, folder, num_items):
    command = [sys.executable, "-m", "tests.benchmarks.scale", "--measure", step]
    command += ["--folder", str(folder), "--items", str(num_items)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    row = json.loads(done.stdout.splitlines()[-1])
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"items": num_items, "step": step, **row, "disk_gb": written / 2**30}


def make(folder, num_items):
    """A catalogue and its graphs, all that a training needs; one row of figures for each step."""
    folder.mkdir(parents=True, exist_ok=True)
    for step in STEPS:
        yield run_step(step, folder, num_items)


def train(folder, num_items):
    """Head and row of the table of ``tests.benchmarks.sampled`` for what lies in a folder."""
    command = [sys.executable, "-m", "tests.benchmarks.sampled", "--folder", str(folder)]
    command += ["--items", str(num_items), "--set", *FAN_OUTS]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"items": num_items, "step": "train", "lines": done.stdout.splitlines()}


def training_table_of(rows):
    trained = [row["lines"] for row in rows if row["step"] == "train"]
    return "\n".join([*trained[0][:2], *(lines[2] for lines in trained)])


def table_of(rows):
    lines = [
        "| items | users | interactions | step | wall s | CPU s | peak GB | folder GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["step"] in SHOWN:
            size = row["items"]
            lines.append(
                f"| {size:,} | {size // 2:,} | {10 * size:,} | {SHOWN[row['step']]} "
                f"| {row['wall']:.0f} | {row['cpu']:.0f} | {row['peak_gb']:.2f} "
                f"| {row['disk_gb']:.1f} |"
            )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "scale-bench")
    parser.add_argument("--write", action="store_true", help="write the table into the docs")
    parser.add_argument("--train", action="store_true", help="train some steps as well")
    parser.add_argument("--measure", choices=STEPS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure, options.folder, options.items)
    work = options.folder / str(options.items)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    kept = options.folder / "rows.json"
    rows = json.loads(kept.read_text()) if kept.exists() else []
    rows = [row for row in rows if row["items"] != options.items]
    for row in make(work, options.items):
        rows.append(row)
        print(json.dumps(row), flush=True)
    if options.train:
        rows.append(train(options.folder, options.items))
        print(*rows[-1]["lines"], sep="\n", flush=True)
    rows.sort(key=lambda row: row["items"])
    kept.write_text(json.dumps(rows, indent=2))
    shutil.rmtree(work)
    if options.write:
        replace_between("scale.md", MARKERS, table_of(rows))
        if any(row["step"] == "train" for row in rows):
            replace_between("scale.md", TRAINING_MARKERS, training_table_of(rows))
    return None


if __name__ == "__main__":
    main()
