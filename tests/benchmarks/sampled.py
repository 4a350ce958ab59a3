"""What a step of sampled training costs as the catalogue grows, part by part.

    python -m tests.benchmarks.sampled [--items 100000 1000000] [--ranks 1 1+1 2]
        [--set train.x=y ...]

The catalogues and graphs of ``tests.benchmarks.scale``. EGRA, one thread for each rank. First steps
are run part after part, sampling too, for the CPU time of each part; then as a training runs them,
with batches drawn ahead in the background, for the time on the clock. The first steps count for
nothing: they read files into memory. ``--ranks 1+1`` runs two trainings of one rank at once that
know nothing of each other: what the machine itself gives two processes, to hold two ranks against.
``--one-core`` keeps a single rank, its background included, on one core, as each of two ranks has
one; ``--set train.propagation.mode=exact`` measures exact steps. ``--operations 10`` lists, after
each row, the operations that took a step of the first rank most, waiting included, by torch's
profiler.
"""

import argparse
import os
import resource
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from tests.benchmarks import scale

SETTINGS = ["train.propagation.mode=sampled", "train.optimizer.tables=rowwise_adagrad"]
PARTS = ("sampling", "forward", "backward", "update")
COLUMNS = ("items", "ranks", "rows looked up", *(f"{part} ms" for part in PARTS))
COLUMNS += ("triplets/s of CPU", "triplets/s", "peak GB of a rank")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--ranks", nargs="*", default=["1"], help="2: two; 1+1: two apart")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=4)
    parser.add_argument("--one-core", action="store_true")
    parser.add_argument("--folder", type=Path, help="of catalogues that scale has left")
    parser.add_argument("--operations", type=int, default=0, help="how many to list")
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    arguments = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for num_items in arguments.items:
        with tempfile.TemporaryDirectory() as folder:
            made = arguments.folder / str(num_items) if arguments.folder else Path(folder)
            if not arguments.folder:
                list(scale.make(made, num_items))
            options = (made, arguments.steps, arguments.warm_up, arguments.settings)
            for ranks in arguments.ranks:
                figures = measured(ranks, arguments.one_core, *options, arguments.operations > 0)
                print(row_of(num_items, figures), flush=True)
                for name, milliseconds in figures["operations"][: arguments.operations]:
                    print(f"{milliseconds:8.1f} ms  {name}")


def measured(ranks, is_on_one_core, *options):
    """What the first rank of the first training measures, rates added up; the largest peak."""
    import torch.multiprocessing as mp

    from tests.integration.ranks import run_on_ranks

    os.environ.update(THP_MEM_ALLOC_ENABLE="1", OMP_NUM_THREADS="1")  # as of Ray's workers
    sizes = [int(size) for size in ranks.split("+")]
    gate = mp.get_context("forkserver").Barrier(sum(sizes))

    def run(training):
        core = training if is_on_one_core and sizes[training] == 1 else None
        return run_on_ranks(measure, sizes[training], gate, core, *options)

    with ThreadPoolExecutor(len(sizes)) as pool:
        trainings = list(pool.map(run, range(len(sizes))))
    return {
        **trainings[0][0],
        "rate": sum(figures[0]["rate"] for figures in trainings),
        "peak_gb": max(of_rank["peak_gb"] for figures in trainings for of_rank in figures),
        "ranks": ranks,
    }


def task_of(folder, settings, training_folder):
    from egra_dist.config import load_config
    from egra_dist.train.task import GraphPaths, Task

    config = load_config(None, [*SETTINGS, *settings])
    graphs = folder / "graphs"
    return Task(
        stage="train",
        catalog=folder / "catalog",
        graphs=GraphPaths.of(graphs, scale.MODALITIES, folder / "merged"),
        settings=config.train,
        evaluation=config.evaluation,
        folder=training_folder,
        seed=0,
    )


def measure(gate, core, folder, num_steps, num_warm, settings, is_profiled):
    """Figures of one rank; all that run at once meet at the gate."""
    import torch

    from egra_dist.train.memory import keep_freed_memory
    from egra_dist.train.setup import assemble

    if core is not None:
        os.sched_setaffinity(0, [sorted(os.sched_getaffinity(0))[core]])
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as training_folder:
        parts = assemble(task_of(folder, settings, Path(training_folder)), torch.device("cpu"))
        gate.wait()
        figures = by_part(parts, num_steps, num_warm)
        gate.wait()
        rate = on_the_clock(parts, num_steps, num_warm)
        operations = by_operation(parts, num_steps) if is_profiled else []
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        **figures,
        "rate": rate,
        "peak_gb": peak,
        "batch": parts.settings.batch_size,
        "operations": operations,
    }


def by_part(parts, num_steps, num_warm):
    """CPU milliseconds of each part, and rows looked up, of a step in the mean."""
    from egra_dist.train.propagation import Batch

    propagation = parts.propagation
    seconds, num_rows = Counter(), 0
    for step, shares in enumerate(islice(propagation._batches.epoch(0), num_steps + num_warm)):
        times = [time.process_time()]
        batch = propagation._surround(shares, 0, step) if is_sampled(parts) else Batch(shares)
        times.append(time.process_time())
        losses = parts.model.losses(propagation.rows(batch), batch.shares, step)
        times.append(time.process_time())
        losses.total.backward()
        times.append(time.process_time())
        parts.optimizers.step()
        times.append(time.process_time())
        if step >= num_warm:
            seconds.update(dict(zip(PARTS, np.diff(times), strict=True)))
            num_rows += sum(map(len, batch.ids.values())) if is_sampled(parts) else 0
    return {
        "rows": num_rows / num_steps,
        **{part: 1e3 * total / num_steps for part, total in seconds.items()},
    }


def by_operation(parts, num_steps):
    """Names, and milliseconds of a step without what they call, the most first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        by_part(parts, num_steps, 0)
    each = [
        (entry.key, entry.self_cpu_time_total / 1e3 / num_steps)
        for entry in profiler.key_averages()
    ]
    return sorted(each, key=lambda entry: -entry[1])


def is_sampled(parts):
    return parts.settings.propagation.mode == "sampled"


def on_the_clock(parts, num_steps, num_warm):
    """Triplets per second of all ranks together, batches drawn in the background."""
    import torch.distributed as dist

    from egra_dist.train.loop import _sum_gradients

    for step, batch in enumerate(islice(parts.propagation.epoch(1), num_steps + num_warm)):
        if step == num_warm:
            dist.barrier()
            started = time.perf_counter()
        parts.model.losses(parts.propagation.rows(batch), batch.shares, step).total.backward()
        _sum_gradients(parts.optimizers.dense_parameters)
        parts.optimizers.step()
    dist.barrier()
    return num_steps * parts.settings.batch_size / (time.perf_counter() - started)


def row_of(num_items, figures):
    parts = [figures[part] for part in PARTS]
    of_cpu = 1e3 * figures["batch"] / sum(parts)
    cells = [f"{num_items:,}", figures["ranks"], f"{figures['rows']:,.0f}"]
    cells += [f"{milliseconds:.0f}" for milliseconds in parts]
    cells += [f"{of_cpu:,.0f}", f"{figures['rate']:,.0f}", f"{figures['peak_gb']:.2f}"]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
