"""Feeds every reader what nobody would write: only a result or one clean line may come back.

    python -m tests.benchmarks.fuzz [--inputs 1000] [--seed 0] [--targets NAME ...]

`--inputs` is for each of the targets in `tests/fuzz_targets.py`. Exits with 1 at the first input
that is answered otherwise, which hypothesis has made as small as it could.
"""

import argparse
import logging
import time

from tests.fuzz_targets import TARGETS
from tests.fuzzing import fuzz


def main() -> None:
    """Fuzzes target by target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="*", choices=list(TARGETS), default=list(TARGETS))
    options = parser.parse_args()
    logging.disable()
    total = 0
    for name in options.targets:
        started = time.process_time()
        count = fuzz(TARGETS[name], options.inputs, options.seed)
        print(f"{name:26} {count:6} inputs, {time.process_time() - started:5.1f} CPU s", flush=True)
        total += count
    print(f"{total} inputs, only clean errors")


if __name__ == "__main__":
    main()
