"""How good the models are, on real data: searches, runs every seed, and writes the tables.

    python -m tests.benchmarks.quality [--data FOLDER] [--work FOLDER] [--jobs 2]
        [--data-sets tiktok ...] [--models egra mgcn ...] [--only 'egra:final:*' ...] [--minutes 60]

It takes hours on two cores. Every trial is kept as it ends (``results.jsonl`` beside this file),
a call runs only what is missing, and ``docs/results.md`` is written from what is there.
``experiments.py`` says what is compared.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from fnmatch import fnmatch
from pathlib import Path

from tests.benchmarks.quality import store
from tests.benchmarks.quality.experiments import DATA_SETS, MODELS
from tests.benchmarks.quality.plan import METRIC, Plan
from tests.benchmarks.quality.tables import write_tables

ROOT = Path(__file__).parents[3]


def main():
    arguments = parse_arguments()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name in arguments.data_sets:
        ingest(name, arguments)
    deadline = time.monotonic() + 60 * arguments.minutes
    with ThreadPoolExecutor(arguments.jobs) as pool:
        run(arguments, pool, deadline)
    write_tables(store.load(arguments.results), arguments.out)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "quality")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results.jsonl"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results.md")
    parser.add_argument("--jobs", type=int, default=1, help="Trials at once, one thread each.")
    parser.add_argument("--minutes", type=float, default=1e6, help="Starts no trial after that.")
    parser.add_argument("--data-sets", nargs="*", choices=DATA_SETS, default=list(DATA_SETS))
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--only",
        nargs="*",
        help="Trials to run, in this order: MODEL:PURPOSE:LOSS:SEED, * for any.",
    )
    return parser.parse_args()


def ingest(name, arguments):
    """Makes the catalogue, unless it is there."""
    catalog = arguments.work / name / "catalog"
    if catalog.exists():
        return
    source = arguments.data / name
    command = ["ingest", "mmrec", str(source), "--out", str(catalog)]
    if DATA_SETS[name].get("rows_in_order"):
        command.append("--rows-in-order")
    subprocess.run([sys.executable, "-m", "egra_dist", *command], check=True)


def run(arguments, pool, deadline):
    """Runs what is pending, asking anew after each trial: some depend on others."""
    running = {}
    while True:
        measured = store.load(arguments.results)
        plan = Plan(measured, arguments.data_sets, arguments.models)
        pending = chosen(plan.pending(), arguments.only)
        fresh = [trial for trial in pending if trial.digest not in running.values()]
        for trial in fresh[: arguments.jobs - len(running)]:
            if time.monotonic() < deadline:
                running[pool.submit(execute, trial, arguments)] = trial.digest
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            del running[future]
            print(f"{future.result()}   ({len(pending) - 1} known to be left)", flush=True)


def chosen(trials, patterns):
    """The trials that match a pattern, those of the first pattern first; all without patterns."""
    if patterns is None:
        return trials
    found = [trial for pattern in patterns for trial in trials if fnmatch(trial.name, pattern)]
    return list({trial.digest: trial for trial in found}.values())


def execute(trial, arguments):
    """Runs a trial in a process of its own and keeps its figures."""
    work = arguments.work / trial.data
    spec = work / f"{trial.digest}.json"
    content = {
        "model": trial.model,
        "settings": trial.settings,
        "seed": trial.seed,
        "is_search": trial.is_search,
        "catalog": str(work / "catalog"),
        "work": str(work / "shared"),
    }
    spec.write_text(json.dumps(content))
    command = [sys.executable, "-m", "tests.benchmarks.quality.trial", str(spec)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if result.returncode:
        raise RuntimeError(f"{trial}: {result.stderr[-2000:]}")
    figures = json.loads(result.stdout.splitlines()[-1])
    store.append(arguments.results, trial, figures)
    score = figures["valid"]["metrics"][METRIC]
    return f"{trial.data} {trial.model} {trial.loss} {trial.purpose} {trial.seed}: {score:.4f}"


if __name__ == "__main__":
    main()
