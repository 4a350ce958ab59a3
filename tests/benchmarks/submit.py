"""Submits a configuration to a real cluster of three nodes on this machine.

    python -m tests.benchmarks.submit configs/tiktok.yaml --data FOLDER [--set KEY=VALUE ...]

Reads FOLDER (in MMRec's layout) into a catalogue, starts a head and two nodes, each a raylet of its
own, submits the run with a worker on each of the two, shows what it says, and ends the cluster.
Exits with the run's exit status, or 1 when a process is left running.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from egra_dist.catalog.mmrec import ingest_mmrec
from tests.clusters import REPOSITORY, LocalCluster


def main() -> int:
    """Runs it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    options = parser.parse_args()
    two = ["cluster.num_workers=2", "cluster.cpus_per_worker=1", *options.settings]
    with tempfile.TemporaryDirectory(prefix="submit-") as folder:
        catalog, out = Path(folder) / "catalog", Path(folder) / "run"
        ingest_mmrec(options.data, catalog)
        with LocalCluster(0, (1, 1)) as cluster:
            arguments = [options.config, "--catalog", str(catalog), "--out", str(out)]
            arguments += [f"--set={setting}" for setting in two]
            started = time.monotonic()
            done = subprocess.run(
                cluster.submit_command(*arguments), env=cluster.environment, cwd=REPOSITORY
            )
            print(f"exit status {done.returncode} after {time.monotonic() - started:.0f} s")
        left = [str(process) for process in cluster.left_over()]
        print(f"left running: {left or 'nothing'}")
    return done.returncode or (1 if left else 0)


if __name__ == "__main__":
    sys.exit(main())
