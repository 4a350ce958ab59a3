"""How long comparing a search takes: ``python -m tests.benchmarks.compare [--runs 12]``.

A search is recorded as trainings would record it, with all settings of a run as parameters, and
then compared by the command, in a process of its own: imports, tables, page and CSV included.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from egra_dist.config import parse_config
from tests.recorded import record_sweep

RAMPS = ("linear", "cosine", "tanh", "constant")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "search"
        record_sweep(f"sqlite:///{out}/mlflow.db", out, trials(options.runs), steps=options.steps)
        command = [sys.executable, "-m", "egra_dist", "compare", "--sweep", str(out)]
        started = time.perf_counter()
        subprocess.run([*command, "--out", f"{folder}/report"], check=True, capture_output=True)
        wall = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        page = (Path(folder) / "report" / "comparison.html").stat().st_size
    cpu = used.ru_utime + used.ru_stime
    print(f"{options.runs} runs of {options.steps} steps: {wall:.1f} s, {cpu:.1f} CPU seconds,")
    print(f"peak {used.ru_maxrss / 2**20:.2f} GiB, page of {page / 1000:.0f} kB")


def trials(number: int) -> list[tuple[dict, float]]:
    """Settings and scores: ramps by seeds."""
    found = []
    for trial in range(number):
        alignment = {"ramp": RAMPS[trial // 3 % len(RAMPS)], "lambda_max": 0.01}
        config = parse_config({"seed": trial % 3, "train": {"alignment": alignment}})
        found.append((config.model_dump(mode="json"), 0.2 + 0.003 * (trial // 3) + trial * 1e-4))
    return found


if __name__ == "__main__":
    main()
