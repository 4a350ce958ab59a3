"""What it takes the workers of a machine to wait for each other: sockets, and a sum by gloo.

    python -m tests.benchmarks.meeting [--ranks 2] [--rounds 2000]

Microseconds of the first rank, on the clock and of the processor, all threads of it.
"""

import argparse
import time

from tests.integration.ranks import run_on_ranks

WARM_UP = 100


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2000)
    arguments = parser.parse_args()
    print("| meeting | us | CPU us |\n|---|---|---|")
    for name, figures in run_on_ranks(measure, arguments.ranks, arguments.rounds)[0].items():
        print(f"| {name} | {figures[0]:.0f} | {figures[1]:.0f} |")


def measure(num_rounds):
    from egra_dist.model.meeting import done_by_all

    ways = {"sockets": lambda: done_by_all(True), "gloo": sum_by_gloo}
    return {name: timed(meet, num_rounds) for name, meet in ways.items()}


def sum_by_gloo():
    import torch
    import torch.distributed as dist

    total = torch.tensor([1])
    dist.all_reduce(total)
    assert total.item() == dist.get_world_size()


def timed(meet, num_rounds):
    for _ in range(WARM_UP):
        meet()
    on_the_clock, of_the_processor = time.perf_counter(), time.process_time()
    for _ in range(num_rounds):
        meet()
    ends = time.perf_counter() - on_the_clock, time.process_time() - of_the_processor
    return [1e6 * seconds / num_rounds for seconds in ends]


if __name__ == "__main__":
    main()
