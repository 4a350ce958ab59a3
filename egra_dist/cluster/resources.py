"""How many CPUs and GPUs each worker gets, and whether the cluster can hold the workers at all."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from egra_dist.config import ClusterSettings
from egra_dist.errors import UserError

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class WorkerResources:
    """What one worker reserves."""

    cpus: int
    gpus: float = 0

    def as_ray(self) -> dict[str, float]:
        """In Ray's names; a resource that is not needed is left out."""
        return {"CPU": float(self.cpus)} | ({"GPU": self.gpus} if self.gpus else {})


def worker_resources(settings: ClusterSettings) -> WorkerResources:
    """What each worker reserves on the cluster that this process is connected to.

    Raises:
        UserError: If the cluster can never hold the workers asked for.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return share_among_workers(settings, nodes, can_grow=_can_grow())


def share_among_workers(
    settings: ClusterSettings,
    nodes: Sequence[Mapping[str, float]],
    can_grow: bool = False,
) -> WorkerResources:
    """Shares the nodes' CPUs equally among the workers, unless the settings say how many.

    Args:
        settings: How many workers, and what each needs.
        nodes: Resources of each live node, in Ray's names (``CPU``, ``GPU``).
        can_grow: Whether an autoscaler may add nodes; then nothing is refused.

    Raises:
        UserError: If the nodes cannot hold that many workers, nor ``min_workers``.
    """
    total_cpus = sum(int(node.get("CPU", 0)) for node in nodes)
    cpus = settings.cpus_per_worker or max(1, total_cpus // settings.num_workers)
    resources = WorkerResources(cpus, settings.gpus_per_worker)
    while not settings.cpus_per_worker and resources.cpus > 1:
        if _num_workers_held(nodes, resources) >= settings.num_workers:
            return resources
        resources = WorkerResources(resources.cpus - 1, resources.gpus)
    held = _num_workers_held(nodes, resources)
    if held < (settings.min_workers or settings.num_workers) and not can_grow:
        raise UserError(
            f"cluster.num_workers = {settings.num_workers}: the cluster holds at most {held} "
            f"workers of {_words(resources)} ({_words_of_nodes(nodes)})"
        )
    return resources


def num_local_cpus() -> int:
    """CPUs that this process may use: its affinity, and its container's quota."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpus = available or 1
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
    except (OSError, ValueError):
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, int(quota) // int(period)))


def num_local_slots(settings: ClusterSettings) -> int:
    """CPUs that a local Ray offers: what the workers are said to get, else the machine's.

    Ray's CPUs are permits, not cores: four workers run on two cores, only more slowly.
    """
    if settings.cpus_per_worker:
        return settings.num_workers * settings.cpus_per_worker
    return max(num_local_cpus(), settings.num_workers)


def _num_workers_held(nodes: Sequence[Mapping[str, float]], resources: WorkerResources) -> int:
    demand = resources.as_ray().items()
    return sum(min(int(node.get(name, 0) / need) for name, need in demand) for node in nodes)


def _can_grow() -> bool:
    from ray._private.state import state  # the autoscaler's limits have no public reader

    return state.get_max_resources_from_cluster_config() is not None


def _words(resources: WorkerResources) -> str:
    cpus = f"{resources.cpus} CPU{'s' if resources.cpus > 1 else ''}"
    return f"{cpus} and {resources.gpus:g} GPU" if resources.gpus else cpus


def _words_of_nodes(nodes: Sequence[Mapping[str, float]]) -> str:
    cpus, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
    return f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}: {cpus:g} CPUs, {gpus:g} GPUs"
