"""What a GPU does with the parts that need only torch, against what it could do.

    python -m tests.benchmarks.device [--device cuda] [--parts knn routed propagation ...]
        [--scale 1] [--json FILE]

The two ceilings are measured first: a large copy (bytes read and written) and large products in
bfloat16 and float32. Every part is checked (against float64, or against the processor) before it
is timed: the median of some calls, everything on the device waited for; "share" is the larger of
its bytes over the copy's rate and its operations over the product's, per second taken. ``--scale``
divides all sizes, for a trial without a GPU.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from egra_dist.graph.knn import Workers
from tests.benchmarks.device_knn import knn, tiles
from tests.benchmarks.device_training import losses, propagation, ranking, sampler


class Bench:
    """A device, its ceilings, and the rows of the table."""

    def __init__(self, device, scale):
        self.device, self.scale, self.rows = torch.device(device), scale, []
        self.workers = Workers(1, device=device)
        self.bytes_per_second = self.ceiling_of_copies()
        self.bfloat16 = self.ceiling_of_products(torch.bfloat16)
        self.float32 = self.ceiling_of_products(torch.float32)

    def size(self, number):
        return max(1024, int(number / self.scale))

    def seconds(self, call, repeats=7):
        """Median of some calls, after one that compiles."""
        call()
        taken = []
        for _ in range(repeats):
            self.wait()
            started = time.perf_counter()
            call()
            self.wait()
            taken.append(time.perf_counter() - started)
        return statistics.median(taken)

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def ceiling_of_copies(self):
        source = torch.randn(self.size(2**29), device=self.device)
        target = torch.empty_like(source)
        return 8 * len(source) / self.seconds(lambda: target.copy_(source))

    def ceiling_of_products(self, dtype):
        side = 8192 if self.scale == 1 else 1024
        one, other = (torch.randn(side, side, device=self.device, dtype=dtype) for _ in range(2))
        return 2 * side**3 / self.seconds(lambda: one @ other)

    def add(self, part, size, seconds, num_bytes=0, num_operations=0, rate=None, note=""):
        floors = num_bytes / self.bytes_per_second, num_operations / (rate or self.float32)
        row = {
            "part": part, "size": size, "seconds": seconds, "bytes": num_bytes,
            "operations": num_operations, "share": max(floors) / seconds,
            "bound": "bytes" if floors[0] > floors[1] else "operations", "note": note,
        }  # fmt: skip
        self.rows.append(row)
        print(json.dumps(row), flush=True)


PARTS = {
    "propagation": propagation,
    "losses": losses,
    "ranking": ranking,
    "sampler": sampler,
    "tiles": tiles,
    "knn": knn,
    "knn100k": lambda bench: knn(bench, num_rows=100_000),
    "routed1m": lambda bench: knn(bench, "routed"),
    "knn10m": lambda bench: knn(bench, num_rows=10_000_000),
    "routed": lambda bench: knn(bench, "routed", 10_000_000),
    "routed95": lambda bench: knn(bench, "routed", 10_000_000, 0.95),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    bench = Bench(options.device, options.scale)
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else "processor"
    ceilings = {
        "copy TB/s": bench.bytes_per_second / 1e12,
        "bfloat16 TFLOP/s": bench.bfloat16 / 1e12,
        "float32 TFLOP/s": bench.float32 / 1e12,
    }
    print(json.dumps({"device": name, "torch": torch.__version__, **ceilings}), flush=True)
    failed = []
    for part in options.parts:
        try:
            PARTS[part](bench)
        except Exception as error:  # a part that fails does not cost the others
            print(f"{part} failed: {type(error).__name__}: {error}", flush=True)
            failed.append(part)
        if options.json:
            options.json.write_text(json.dumps({"device": name, **ceilings, "rows": bench.rows}))
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
