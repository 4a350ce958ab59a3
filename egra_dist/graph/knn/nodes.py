"""Tasks on the nodes of a Ray cluster, each near those whose rows it reads.

Lists that are near each other stand next to each other in the order of tasks, so that a node that
runs a range of tasks reads its own rows and few others, and finds them in its file cache again.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egra_dist.graph.knn.tasks import Call, Done, run_one, single_threaded

WINDOW_PER_SLOT = 2
"""Tasks that are handed to a node for each of its slots: one that runs and one that waits. What
tasks in flight hold is bounded by it; none of it is in the object store but their descriptions."""

_ANYWHERE = ""
_SLOTS_TO_COME = 8
"""Tasks in flight on a cluster that has no node yet and starts some on demand."""


class Queues:
    """Tasks that wait, one queue per node.

    Args:
        weights: Cost of each task, in the order of lists.
        slots: Tasks that each node runs at a time: its share of the cost.
    """

    def __init__(self, weights: Sequence[float], slots: Sequence[int]) -> None:
        cost = np.asarray(weights, dtype=float) + 1e-9
        middle = (np.cumsum(cost) - cost / 2) / cost.sum()
        node = np.searchsorted(np.cumsum(slots) / np.sum(slots), middle)
        self._cost = cost
        self._waiting = [self._lightest_first(np.flatnonzero(node == n)) for n in range(len(slots))]

    def take(self, node: int) -> int | None:
        """The heaviest task of a node's queue, or of the longest when its own is empty."""
        queue = self._waiting[node] or max(self._waiting, key=self._left)
        return queue.pop() if queue else None

    def _lightest_first(self, tasks: NDArray[np.int64]) -> list[int]:
        return tasks[np.argsort(self._cost[tasks], kind="stable")].tolist()

    def _left(self, queue: list[int]) -> float:
        return float(self._cost[queue].sum())


def warm_up() -> list[Any]:
    """Lets every slot start its process and load the libraries; returns what to wait for."""
    import ray

    remote = ray.remote(num_cpus=1)(_load)
    return [remote.remote() for _ in range(sum(_slots_of_nodes().values()))]


def run_on_nodes(
    calls: Sequence[Call], weights: Sequence[float], device: str = "cpu"
) -> Iterator[Done]:
    """Runs tasks on the nodes that are there now.

    Args:
        calls: What to run, in the order of lists.
        weights: Cost of each.
        device: ``cpu`` for a CPU for each task, else a GPU.

    Yields:
        What is done, as it is done.
    """
    import ray

    needs = {"num_cpus": 1} if device == "cpu" else {"num_cpus": 0, "num_gpus": 1}
    remote = ray.remote(max_retries=3, **needs)(_run_single_threaded)
    nodes = _slots_of_nodes("CPU" if device == "cpu" else "GPU") or {_ANYWHERE: _SLOTS_TO_COME}
    queues = Queues(weights, list(nodes.values()))
    running: dict[Any, int] = {}

    def submit(node: int, name: str) -> None:
        number = queues.take(node)
        if number is not None:
            task = remote.options(scheduling_strategy=_near(name))
            running[task.remote(*calls[number])] = node

    names = list(nodes)
    for _ in range(WINDOW_PER_SLOT):
        for node, (name, slots) in enumerate(nodes.items()):
            for _ in range(slots):
                submit(node, name)
    while running:
        for finished in ray.wait(list(running))[0]:
            node = running.pop(finished)
            yield ray.get(finished)
            submit(node, names[node])


def _slots_of_nodes(resource: str = "CPU") -> dict[str, int]:
    """CPUs or GPUs of each node that has any, by its id."""
    import ray

    there = {node["NodeID"]: int(node["Resources"].get(resource, 0)) for node in ray.nodes()}
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    return {name: slots for name, slots in there.items() if slots and name in alive}


def _near(node: str) -> Any:
    """Prefers a node; elsewhere when it is lost, or busy with something else."""
    if node == _ANYWHERE:
        return "DEFAULT"
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=True, _spill_on_unavailable=True)


def _run_single_threaded(*call: Any) -> Done:
    with single_threaded():
        return run_one(*call)


def _load() -> None:
    """Unpickling it has imported this module, and what the tasks need with it."""
