"""What a checkpoint costs a training: written while it waits, or in the background.

    python -m tests.benchmarks.checkpoints [--items 1000000] [--steps 20] [--rounds 3]

TikTok by exact propagation (where ``EGRA_DATA`` has it) and synthetic catalogues by samples (those
of ``tests.benchmarks.sampled``; random item graphs on both). EGRA with Adam, one rank, one thread.
Wall seconds,
medians over rounds. ``waits``: a checkpoint for which the training waits until it is committed.
``stall``: how long it waits for the copy alone. ``extra``: stall, and by how much the steps are
slower while the thread writes. ``share``: ``extra`` of the time between two checkpoints, which is
the default of ``cluster.checkpoint_minutes``, or an epoch with its evaluation where that is less.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from tests.benchmarks.quality.trial import ONE_RANK
from tests.benchmarks.tasks import make_task, task_on

SAMPLED = ["train.propagation.mode=sampled"]
COLUMNS = ("data", "checkpoint MB", "step ms", "waits s", "stall s", "extra s", "share")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--steps", type=int, default=20, help="steps after which the pace is known")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.update(ONE_RANK)
    import torch
    import torch.distributed as dist

    from egra_dist.tracking.noise import setup_logging

    setup_logging(0)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{tempfile.mkdtemp()}/ranks", rank=0, world_size=1)
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    makers = [tiktok_task] if os.environ.get("EGRA_DATA") else []
    makers += [
        lambda folder, n=n: (f"{n:,} items", make_task(folder, n, SAMPLED)) for n in arguments.items
    ]
    for make in makers:
        with tempfile.TemporaryDirectory() as folder:
            name, task = make(Path(folder))
            print(row(name, task, arguments.steps, arguments.rounds), flush=True)


def tiktok_task(folder):
    from egra_dist.catalog.mmrec import ingest_mmrec

    catalog = ingest_mmrec(Path(os.environ["EGRA_DATA"]) / "tiktok", folder / "catalog", 0)
    return "TikTok", task_on(catalog, folder, [])


def row(name, task, num_steps, num_rounds):
    import torch

    from egra_dist.config import ClusterSettings
    from egra_dist.train.commit import TrainingState
    from egra_dist.train.setup import assemble

    parts = assemble(task, torch.device("cpu"))
    step = stepper(parts)
    state, rounds = TrainingState(), []
    for _ in range(num_rounds + 1):
        pace = timed(lambda: [step() for _ in range(num_steps)]) / num_steps
        state.step += 1
        waits = timed(lambda: (parts.checkpoints.save(state, False), parts.checkpoints.wait()))
        state.step += 1
        stall = timed(lambda: parts.checkpoints.save(state, False))
        started, done = time.perf_counter(), 0
        while not parts.checkpoints._writing[0].done() or done == 0:
            step()
            done += 1
        extra = stall + max(0.0, time.perf_counter() - started - done * pace)
        parts.checkpoints.wait()
        rounds.append((pace, waits, stall, extra))
    pace, waits, stall, extra = (statistics.median(each) for each in zip(*rounds[1:], strict=True))
    between = 60 * ClusterSettings().checkpoint_minutes
    if task.settings.propagation.mode == "exact":
        evaluation = timed(lambda: parts.validate(parts.propagation.infer()))
        between = min(between, pace * parts.propagation._batches.steps_per_epoch + evaluation)
    size = sum(p.stat().st_size for p in newest(task).rglob("*")) / 1e6
    figures = f"{size:,.0f} | {1e3 * pace:.0f} | {waits:.3f} | {stall:.3f} | {extra:.3f}"
    return f"| {name} | {figures} | {extra / between:.2%} of {between:.0f} s |"


def stepper(parts):
    """Does one step after the other, epoch after epoch."""

    def batches():
        epoch = 0
        while True:
            yield from parts.propagation.epoch(epoch)
            epoch += 1

    source = batches()

    def step():
        batch = next(source)
        losses = parts.model.losses(parts.propagation.rows(batch), batch.shares, 0)
        losses.total.backward()
        parts.optimizers.step()

    return step


def newest(task):
    return max((task.folder / "checkpoints").glob("step-*"), key=lambda path: path.name)


def timed(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
