"""What a step of sampled training costs as the catalogue grows, part by part.

    python -m tests.benchmarks.sampled [--items 100000 1000000] [--steps 20] [--set train.x=y ...]

Synthetic catalogues of half as many users, ten interactions for each, two modalities of 64
columns; item graphs are random (ten neighbours), as their kind does not change what a step costs.
EGRA, one rank, one thread. Sampling is timed alone, not in the background: with a core of its own
it costs a step nothing while it takes less than the rest.
"""

import argparse
import os
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from tests.benchmarks.quality.trial import ONE_RANK

SETTINGS = ["train.propagation.mode=sampled", "train.optimizer.tables=rowwise_adagrad"]
PARTS = ("sampling", "forward", "backward", "update")
NUM_NEIGHBORS = 10


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    arguments = parser.parse_args()
    os.environ.update(ONE_RANK)
    import torch
    import torch.distributed as dist

    from egra_dist.tracking.noise import setup_logging

    setup_logging(0)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{tempfile.mkdtemp()}/ranks", rank=0, world_size=1)
    columns = [
        "items",
        "rows looked up",
        *(f"{part} ms" for part in PARTS),
        "triplets/s",
        "peak MB",
    ]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for num_items in arguments.items:
        with tempfile.TemporaryDirectory() as folder:
            task = make_task(Path(folder), num_items, [*SETTINGS, *arguments.settings])
            show(num_items, task, *measure(task, arguments.steps))


def make_task(folder, num_items, settings):
    from egra_dist.catalog.synth import SynthSettings, synthesize

    sizes = {"num_items": num_items, "num_users": num_items // 2, "num_interactions": 5 * num_items}
    return task_on(synthesize(SynthSettings(**sizes), folder / "catalog"), folder, settings)


def task_on(catalog, folder, settings):
    """A training on a catalogue, with random item graphs."""
    from egra_dist.config import load_config
    from egra_dist.graph.behavior import merge, normalize, training_matrix
    from egra_dist.train.task import GraphPaths, Task

    num_items = catalog.num_items
    config = load_config(None, settings)
    random = np.random.default_rng(0)
    training = training_matrix(catalog)
    training.save(folder / "training")
    merge(training, None, 0).save(folder / "plain")
    merge(training, random_neighbors(num_items, random), 0.5).save(folder / "behavior")
    features = {name: folder / name for name in catalog.modalities}
    for path in features.values():
        normalize(random_neighbors(num_items, random)).save(path)
    return Task(
        stage="train",
        catalog=catalog.path,
        graphs=GraphPaths(folder / "training", folder / "plain", folder / "behavior", features),
        settings=config.train,
        evaluation=config.evaluation,
        folder=folder / "training_run",
        seed=0,
    )


def random_neighbors(num_items, random):
    from egra_dist.graph.csr import Csr

    columns = np.sort(random.integers(num_items, size=(num_items, NUM_NEIGHBORS), dtype=np.int32))
    indptr = np.arange(num_items + 1, dtype=np.int64) * NUM_NEIGHBORS
    ones = np.ones(columns.size, dtype=np.float32)
    return Csr(indptr, columns.ravel(), ones, num_items)


def measure(task, num_steps):
    """CPU seconds by part, and rows looked up, over all steps but the first."""
    import torch

    from egra_dist.train.setup import assemble

    parts = assemble(task, torch.device("cpu"))
    propagation = parts.propagation
    triplets = propagation._batches.epoch(0)
    seconds, num_rows = Counter(), 0
    for step in range(num_steps + 1):
        shares = next(triplets)
        times = [time.process_time()]
        batch = propagation._surround(shares, 0, step)
        times.append(time.process_time())
        losses = parts.model.losses(propagation.rows(batch), batch.shares, step)
        times.append(time.process_time())
        losses.total.backward()
        times.append(time.process_time())
        parts.optimizers.step()
        times.append(time.process_time())
        if step > 0:
            seconds.update(dict(zip(PARTS, np.diff(times), strict=True)))
            num_rows += sum(len(ids) for ids in batch.ids.values())
    return {name: total / num_steps for name, total in seconds.items()}, num_rows / num_steps


def show(num_items, task, seconds, num_rows):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = task.settings.batch_size / sum(seconds.values())
    parts = " | ".join(f"{1e3 * value:.0f}" for value in seconds.values())
    print(f"| {num_items:,} | {num_rows:,.0f} | {parts} | {rate:,.0f} | {peak:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
