"""How results are measured, recorded, and where it all runs."""

from typing import Annotated

from pydantic import Field

from egra_dist.config.base import NonNegativeFloat, PositiveInt, Settings


class EvaluationSettings(Settings):
    """Full ranking: every item for every user with a held-out item."""

    cutoffs: Annotated[list[PositiveInt], Field(min_length=1)] = [5, 10, 20, 50]
    mask_valid: bool = False
    """Whether validation positives are masked when testing."""
    num_users: PositiveInt | None = None
    """Users that are evaluated, of those with held-out items: a sample, the same in every run; all
    when not given."""
    user_batch_size: PositiveInt = 1024
    item_tile_size: PositiveInt = 16384


class TrackingSettings(Settings):
    """Where MLflow records."""

    uri: str | None = None
    """Tracking URI; a sqlite file in the run folder when not given."""
    experiment: str = "egra"
    run_name: str | None = None
    """Name of the parent run; the run folder's name when not given."""
    log_every_steps: PositiveInt = 10
    system_metrics: bool = True


class ClusterSettings(Settings):
    """Where it runs. Nothing here changes what is learned."""

    address: str | None = None
    """Address of a Ray cluster; a local one is started when not given."""
    num_workers: PositiveInt = 1
    cpus_per_worker: PositiveInt | None = None
    """CPUs of each worker; all of the machine, shared equally, when not given."""
    gpus_per_worker: NonNegativeFloat = 0
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """Restarts of a worker group after failures; -1: without end."""
    checkpoint_steps: PositiveInt | None = None
    """Steps between two checkpoints within an epoch, from which a restarted training goes on; only
    after evaluations when not given."""
    environment: dict[str, str] = {}
    """Environment variables of the workers, e.g. ``GLOO_SOCKET_IFNAME``."""
