"""Kills whatever can be killed, twenty times in one run, and checks that nothing was lost.

    python -m tests.benchmarks.chaos [--kills 20] [--seed 0] [--steps 1200]

Starts a real cluster (a head and two nodes, each a raylet of its own), submits a run on a small
catalogue, and kills a worker, a node, the head or the driver whenever the training has come to the
next of the random steps. After the death of the head or the driver the same command is given
again; all else has to mend itself. Exits with 1, and names what, if anything does not hold:

* the run ends, with the figures and vectors of an undisturbed run, bit for bit;
* it goes on from the last checkpoint, never from an earlier one;
* MLflow has one run, every logged step once, none left out;
* no process outlives what it belonged to, no artifact is half written.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from egra_dist.catalog.synth import SynthSettings, synthesize
from tests.clusters import LocalCluster
from tests.disturbance import KINDS, Disturbed, check_record, figures, half_written

CATALOG = SynthSettings(num_items=300, num_users=500, num_interactions=5000)


def main() -> int:
    """Runs it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        failures = disturb(Path(folder), options.kills, options.seed, options.steps)
    for failure in failures:
        print(f"FAILED: {failure}")
    print("failed" if failures else "everything holds")
    return 1 if failures else 0


def disturb(folder: Path, num_kills: int, seed: int, num_steps: int) -> list[str]:
    """Runs undisturbed, then disturbed; returns what does not hold."""
    catalog = synthesize(CATALOG, folder / "catalog").path
    settings = ["train.max_epochs=100000", f"train.max_steps={num_steps}"]
    with LocalCluster(0, (1, 1)) as cluster:
        started = time.monotonic()
        reference = Disturbed(cluster, catalog, folder / "reference", settings).finish(1800)
        print(f"undisturbed: {time.monotonic() - started:.0f} s, {num_steps} steps", flush=True)
        run = Disturbed(cluster, catalog, folder / "disturbed", settings)
        started = time.monotonic()
        status = kill_at_random_steps(run, num_kills, seed, num_steps)
        print(f"disturbed: {time.monotonic() - started:.0f} s, exit status {status}", flush=True)
        remaining = [*run.processes("RayTrainWorker"), *run.processes("egra_dist run")]
    return verdict(run, reference, num_steps, status, list(map(str, remaining)))


def kill_at_random_steps(run: Disturbed, num_kills: int, seed: int, num_steps: int) -> int:
    """Each kind as often as the others, in random order, at random steps."""
    rng = random.Random(seed)
    kinds = [KINDS[number % len(KINDS)] for number in range(num_kills)]
    rng.shuffle(kinds)
    steps = sorted(rng.sample(range(num_steps // 50, num_steps * 19 // 20), num_kills))
    run.submit()
    slowest: dict[str, float] = {}
    for kind, step in zip(kinds, steps, strict=True):
        run.wait_for_step(step, seconds=600)
        happened = run.disturb(kind)
        slowest[kind] = max(happened.seconds, slowest.get(kind, 0))
        print(
            f"{kind:7} killed at step {happened.at:4}, last checkpoint {happened.committed:4}, "
            f"went on from {happened.resumed or 0:4}, further after {happened.seconds:3.0f} s",
            flush=True,
        )
    print("slowest: " + ", ".join(f"{kind} {slowest[kind]:.0f} s" for kind in sorted(slowest)))
    return run.wait(1800)


def verdict(
    run: Disturbed,
    reference: Disturbed,
    num_steps: int,
    status: int,
    remaining: list[str],
) -> list[str]:
    """What does not hold."""
    failures = [] if status == 0 else [f"exit status {status}: {run.said}"]
    failures += [f"half written: {path}" for path in half_written(run.out)]
    failures += [f"orphan: {process}" for process in [*run.cluster.orphans, *remaining]]
    failures += [
        f"went on from before the last checkpoint: {kill}" for kill in run.kills if kill.lost
    ]
    if figures(run.out) != figures(reference.out):
        failures.append("the figures are not those of the undisturbed run")
    for each in (run, reference):
        try:
            check_record(each.out, num_steps)
        except AssertionError as error:
            failures.append(f"{each.out.name}: {error}")
    return failures


if __name__ == "__main__":
    sys.exit(main())
