"""How many trials run at the same time, and what each reserves."""

from egra_dist.cluster.resources import worker_resources
from egra_dist.config import ClusterSettings
from egra_dist.errors import UserError

_MOST_BY_DEFAULT = 8


def place_trials(
    cluster: ClusterSettings, wanted: int | None, num_trials: int
) -> tuple[ClusterSettings, int]:
    """How many trials run at a time, and what each of their workers reserves.

    Args:
        cluster: What one trial asks for.
        wanted: Trials at a time; as many as fit, at most 8, when None.
        num_trials: How many there are.

    Returns:
        The settings of a trial, and the number of trials.

    Raises:
        UserError: If the cluster cannot hold them.
    """
    most = min(wanted or _MOST_BY_DEFAULT, num_trials)
    for num_concurrent in range(most, 0, -1):
        num_workers = cluster.num_workers * num_concurrent
        try:
            resources = worker_resources(cluster.model_copy(update={"num_workers": num_workers}))
        except UserError as error:
            if num_concurrent > 1 and not wanted:
                continue
            raise UserError(f"max_concurrent = {num_concurrent}: {error}") from None
        reserved = {"address": None, "cpus_per_worker": resources.cpus}
        return cluster.model_copy(update=reserved), num_concurrent
    raise AssertionError(most)
