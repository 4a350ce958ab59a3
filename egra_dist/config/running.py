"""How results are measured, recorded, and where it all runs."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from egra_dist.config.base import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Settings,
)
from egra_dist.redaction import is_secret_name


class EvaluationSettings(Settings):
    """Full ranking: every item for every user with a held-out item."""

    cutoffs: Annotated[list[PositiveInt], Field(min_length=1)] = [5, 10, 20, 50]
    """Lengths of the ranked lists that are judged: ``20`` gives ``recall_at_20`` and so on."""
    mask_valid: bool = False
    """Whether validation positives are masked when testing."""
    num_users: PositiveInt | None = None
    """Users that are evaluated, of those with held-out items: a sample, the same in every run; all
    when not given. On validation they decide which state is the best."""
    user_batch_size: PositiveInt = 1024
    """Users whose items are ranked at a time; changes memory, not the figures."""
    item_tile_size: PositiveInt = 16384
    """Items that they are scored against at a time; changes memory, not the figures."""


class HistorySettings(Settings):
    """How much the latest items of users count in their final vectors.

    After the training a user's vector ``u`` becomes ``(1 - share) u + share * h``, with ``h`` the
    mean of the final vectors of the items that the user chose in training, weighted by how late. Of
    several shares and decays each model of the run gets those that are best on validation, by its
    ``metric``; trying them trains nothing again.
    """

    shares: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)] = [0]
    """Shares of the history that are tried; 0 leaves vectors as they are."""
    decays: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)] = [0.5]
    """What an item weighs against the one that was chosen next, tried with every share; with 1 all
    weigh the same, and the catalogue needs no times."""

    @property
    def is_used(self) -> bool:
        """Whether vectors may change."""
        return any(self.shares)

    @property
    def needs_times(self) -> bool:
        """Whether interactions must have times."""
        return self.is_used and any(decay < 1 for decay in self.decays)

    @property
    def candidates(self) -> list[tuple[float, float]]:
        """Shares and decays to be tried; without a share the decay makes no difference."""
        pairs = {(share, decay if share else 1.0) for share in self.shares for decay in self.decays}
        return sorted(pairs)


class ExportSettings(Settings):
    """What leaves the house."""

    index: Literal["auto", "flat", "hnsw", "ivf"] = "auto"
    """Kind of the faiss index of the items: every item compared, a graph of neighbours, inverted
    lists; by the number of items when ``auto``."""
    min_recall: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Share of the exactly best 20 items that the index has to find, over a sample of users."""
    leave_out: list[Literal["train", "valid", "test"]] = ["train", "valid", "test"]
    """Whose interactions make an item a seen one, which is not recommended to that user again."""
    features: bool = True
    """Whether item features go along, in half precision, so that new items can be placed."""
    title: str = "title"
    """Column of the catalogue's item table that is printed with recommended items."""
    top_k: Annotated[int, Field(gt=0, le=1000)] | None = None
    """Items of the list that is written for every user; no lists when not given."""
    model_name: Annotated[str, Field(min_length=1, pattern=r"^[^/:]+$")] | None = None
    """Name in MLflow's registry under which a run registers its model; not registered when not
    given."""
    alias: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = "champion"
    """Alias in the registry that then names this version."""

    @property
    def shaping(self) -> dict[str, Any]:
        """What the exported files depend on."""
        return self.model_dump(mode="json", exclude={"top_k", "model_name", "alias"})


class TrackingSettings(Settings):
    """Where MLflow records."""

    uri: str | None = None
    """Tracking URI; a sqlite file in the run folder when not given."""
    experiment: str = "egra"
    """Name of the experiment that runs are filed under."""
    run_name: str | None = None
    """Name of the parent run; the run folder's name when not given."""
    log_every_steps: PositiveInt = 10
    """Steps between two points of a training's series."""
    system_metrics: bool = True
    """Whether processor, memory and GPU of rank 0 are recorded, every ten seconds."""
    figures: bool = True
    """Whether figures are drawn of what a training has left; it takes a second or two."""


Quantity = Annotated[str, Field(pattern=r"^[1-9][0-9]*(Mi|Gi|Ti)$")]
"""An amount of memory as Kubernetes writes it, e.g. ``64Gi``."""


class KubernetesSettings(Settings):
    """What a manifest for KubeRay says beyond the workers."""

    image: str = "egra-dist:latest"
    """What every pod runs; the project's Dockerfile builds it."""
    workers_per_node: PositiveInt = 1
    """Workers that share one pod, and so one machine."""
    memory_per_worker: Quantity = "16Gi"
    """Memory that a pod has for each of its workers."""
    shared_memory: Quantity = "4Gi"
    """Size of ``/dev/shm`` of each worker's pod, where Ray keeps its objects."""
    head_cpus: PositiveInt = 4
    """CPUs of the head's pod, where the driver of a run works."""
    head_memory: Quantity = "16Gi"
    """Memory of the head's pod."""
    claim: str = "egra"
    """PersistentVolumeClaim (ReadWriteMany) with catalogues and run folders."""
    mount: Path = Path("/mnt/egra")
    """Where pods see it."""
    autoscale: bool = False
    """Whether nodes come when they are needed and go when idle."""
    head_selector: dict[str, str] = {}
    """Labels of the nodes that the head may run on: those that stay."""
    worker_selector: dict[str, str] = {}
    """Labels of the workers' nodes, e.g. a cloud's label of spot machines; its taints of the same
    keys are tolerated."""
    retries: NonNegativeInt = 3
    """New clusters for a job whose head was lost; each goes on where the last one stopped."""


class ClusterSettings(Settings):
    """Where it runs. Nothing here changes what is learned."""

    address: str | None = None
    """Address of a Ray cluster; a local one is started when not given."""
    num_workers: PositiveInt = 1
    """Processes that train together, each with its share of the tables."""
    min_workers: PositiveInt | None = None
    """With how many workers a training also goes on while there is no room for ``num_workers``,
    e.g. after a node was lost; it waits for all of them when not given."""
    cpus_per_worker: PositiveInt | None = None
    """CPUs of each worker; all of the machine, shared equally, when not given."""
    gpus_per_worker: NonNegativeFloat = 0
    """GPUs of each worker; a share lets several use one."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """Restarts of a worker group after failures; -1: without end."""
    checkpoint_minutes: PositiveFloat = 5
    """Minutes between two checkpoints, from which a restarted training goes on; each evaluation
    leaves one, too."""
    checkpoint_steps: PositiveInt | None = None
    """Steps between two checkpoints, beside those."""
    checkpoints_kept: PositiveInt = 2
    """The last checkpoints that are kept, beside the best one."""
    stuck_minutes: PositiveFloat = 30
    """A worker that has made no step for so long tells where it stands and is started again; more
    than the longest evaluation takes."""
    cache: Path | None = None
    """Folder on each machine for catalogues that come from a URI; the run folder's ``catalogs``,
    which all machines see, when not given."""
    environment: dict[str, str] = {}
    """Environment variables of the workers, e.g. ``GLOO_SOCKET_IFNAME``; no secrets, since
    settings are recorded and sent."""
    kubernetes: KubernetesSettings = KubernetesSettings()
    """Read by ``egra-dist submit --kuberay`` alone."""

    @field_validator("environment")
    @classmethod
    def _no_secret_is_named(cls, environment: dict[str, str]) -> dict[str, str]:
        for name in filter(is_secret_name, environment):
            raise ValueError(
                f"cluster.environment.{name}: settings are recorded and sent, so that secrets do "
                "not belong here; set it in the environment of the cluster's machines"
            )
        return environment

    @model_validator(mode="after")
    def _min_workers_is_below(self) -> "ClusterSettings":
        if self.min_workers and self.min_workers > self.num_workers:
            raise ValueError(
                f"min_workers: {self.min_workers} is more than num_workers = {self.num_workers}"
            )
        return self
