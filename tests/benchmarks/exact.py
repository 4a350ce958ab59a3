"""What an epoch of exact training costs on real data, part by part.

    python -m tests.benchmarks.exact [--data-sets tiktok] [--models mgcn egra]
        [--losses bpr softmax] [--epochs 1] [--set train.x=y ...]

One rank, one thread, the models' defaults and the batch size of ``quality/experiments.py``; EGRA
on an item graph of raw features, as its kind does not change what a step costs. CPU seconds; an
epoch has a validation at its end, as when training.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.benchmarks.quality.__main__ import ROOT, ingest
from tests.benchmarks.quality.experiments import BATCH_SIZE, BY_LOSS, DATA_SETS
from tests.benchmarks.quality.trial import ONE_RANK, Stages

PARTS = ("batches", "propagation", "losses", "backward", "update", "validation")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=ROOT.parent / "shared" / "data", type=Path)
    parser.add_argument("--work", default=ROOT / "runs" / "quality", type=Path)
    parser.add_argument("--data-sets", nargs="*", choices=DATA_SETS, default=["tiktok"])
    parser.add_argument("--models", nargs="*", default=["mgcn", "egra"])
    parser.add_argument("--losses", nargs="*", default=["bpr", "softmax"])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    arguments = parser.parse_args()
    os.environ.update(ONE_RANK)
    import torch
    import torch.distributed as dist

    from egra_dist.tracking.noise import setup_logging

    setup_logging(0)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{tempfile.mkdtemp()}/ranks", rank=0, world_size=1)
    print(f"| data | model | loss | steps | epoch | {' | '.join(PARTS)} |")
    print("|---" * (5 + len(PARTS)) + "|")
    for name in arguments.data_sets:
        ingest(name, arguments)
        for model in arguments.models:
            for loss in arguments.losses:
                parts = assemble(arguments, name, model, loss)
                seconds, num_steps = measure(parts, arguments.epochs)
                shown = [f"{seconds[part] / arguments.epochs:.2f}" for part in PARTS]
                total = sum(seconds.values()) / arguments.epochs
                print(
                    f"| {name} | {model} | {loss} | {num_steps} | {total:.2f} "
                    f"| {' | '.join(shown)} |",
                    flush=True,
                )


def assemble(arguments, data, model, loss):
    from egra_dist.catalog.catalog import Catalog
    from egra_dist.config import load_config

    overrides = {
        "train.model.name": model,
        "train.batch_size": BATCH_SIZE,
        "item_graph.source": "raw",
        "item_graph.combine": "union",
        **{key: values[0] for key, values in BY_LOSS[loss].items()},
    }
    given = [f"{key}={value}" for key, value in overrides.items()]
    config = load_config(None, [*given, *arguments.settings])
    work = arguments.work / data
    return Stages(work / "shared", Catalog.open(work / "catalog"), config).assemble("train")


def measure(parts, num_epochs):
    """CPU seconds of each part, over all epochs, and the steps of one."""
    seconds = Counter()
    # The first step allocates what later ones use again.
    step(parts, next(iter(parts.propagation.epoch(num_epochs))), 0, Counter())
    for epoch in range(num_epochs):
        parts.model.start_epoch(epoch)
        num_steps, last = 0, time.process_time()
        for batch in parts.propagation.epoch(epoch):
            seconds["batches"] += time.process_time() - last
            step(parts, batch, num_steps, seconds)
            num_steps, last = num_steps + 1, time.process_time()
        parts.validate(parts.propagation.infer())
        seconds["validation"] += time.process_time() - last
    return seconds, num_steps


def step(parts, batch, number, seconds):
    """One step of ``egra_dist.train.loop``, timed."""
    times = [time.process_time()]
    rows = parts.propagation.rows(batch)
    times.append(time.process_time())
    losses = parts.model.losses(rows, batch.shares, number)
    times.append(time.process_time())
    losses.total.backward()
    times.append(time.process_time())
    parts.optimizers.step()
    times.append(time.process_time())
    for name, (start, end) in zip(PARTS[1:5], itertools.pairwise(times), strict=True):
        seconds[name] += end - start


if __name__ == "__main__":
    main()
