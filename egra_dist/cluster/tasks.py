"""Independent tasks on whatever CPUs the Ray session has."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_WINDOW_PER_CPU = 2


def ray_map(function: Callable[[_Item], _Result], items: Iterable[_Item], /) -> Iterator[_Result]:
    """As the builtin ``map``, by Ray tasks of one CPU each, of an initialised session.

    A task whose worker dies is run again. Only a few more tasks than there are CPUs are handed
    out at a time, and results come in the order of the items.

    Args:
        function: Picklable; what it returns is small.
        items: Picklable.
    """
    import ray

    remote = ray.remote(num_cpus=1, max_retries=3)(_call)
    window = _WINDOW_PER_CPU * int(ray.cluster_resources().get("CPU", 1))
    queue = iter(items)
    running = [remote.remote(function, item) for item in islice(queue, window)]
    while running:
        yield ray.get(running.pop(0))
        running += [remote.remote(function, item) for item in islice(queue, 1)]


def on_every_node(function: Callable[..., object], *arguments: object) -> None:
    """Calls a function once on each machine of an initialised session, all at the same time."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0)(function)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    ray.get([remote.options(scheduling_strategy=place).remote(*arguments) for place in places])


def _call(function: Callable[[_Item], _Result], item: _Item) -> _Result:
    return function(item)
