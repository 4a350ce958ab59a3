"""What the driver hands to the workers: where things are and what to do. Picklable, small."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.remote import fetch_catalog
from egra_dist.config import (
    ClusterSettings,
    EvaluationSettings,
    HistorySettings,
    TrainingSettings,
)
from egra_dist.extension import load_own, own_names
from egra_dist.manifest import digest_of
from egra_dist.storage import Storage

SHARES = "item_shares"
"""Folder, beside the vectors, of what each modality adds to those of the items."""
HISTORY = "history.json"
"""Shares and decays of the users' histories that were tried, the one that was taken first."""


def vectors_file(folder: Path, table: str) -> Path:
    """Where the final vectors of users or items are, ``float32 [num_rows, dim]``.

    Args:
        folder: What a training has left.
        table: ``user`` or ``item``.
    """
    return folder / f"{table}_vectors.npy"


@dataclass(frozen=True)
class Recording:
    """Where rank 0 records.

    Attributes:
        uri: MLflow's tracking URI.
        run_id: The run.
        spool: Folder of the points that are on their way.
        system_seconds: Seconds between samples of the system metrics; None: no samples.
    """

    uri: str = field(repr=False)  # Ray shows its workers' arguments, and it may hold a password
    run_id: str
    spool: Path
    system_seconds: float | None = None


@dataclass(frozen=True)
class Survival:
    """What a training does to survive; the settings of the same names say more.

    Attributes:
        checkpoint_minutes: Minutes between two checkpoints.
        checkpoint_steps: Steps between two checkpoints, beside those.
        checkpoints_kept: How many of the last ones are kept.
        stuck_minutes: How long no step may be done.
    """

    checkpoint_minutes: float = 5
    checkpoint_steps: int | None = None
    checkpoints_kept: int = 2
    stuck_minutes: float = 30

    @classmethod
    def of(cls, cluster: ClusterSettings) -> "Survival":
        """What the settings say."""
        return cls(**{each.name: getattr(cluster, each.name) for each in fields(cls)})


@dataclass(frozen=True)
class Task:
    """One training, or the evaluation of its vectors.

    Attributes:
        stage: Name shown and recorded, e.g. ``"pretrain"``.
        catalog: Catalogue folder.
        graphs: Folder of the behaviour graphs, see ``train.setup``.
        settings: What to train.
        evaluation: How to evaluate.
        folder: Where checkpoints, vectors and figures go; shared by all workers.
        seed: Seed of everything random.
        recording: None: nothing is recorded.
        progress: Handle through which rank 0 tells how far it is.
        log_every_steps: Steps between two records of the losses.
        survival: When checkpoints are written, how many are kept, when a worker counts as stuck.
        inputs: Digests of the artifacts that the training is made from, by name.
        catalog_uri: Where a machine fetches the catalogue from that does not have it.
        storage: Where checkpoints are copied to.
        verbosity: 0, or more to see what the libraries say.
        features: Folder of the preprocessed features; the catalogue's own when None.
        code: Where modules of the user's own are looked for, too; the current folder when None.
        history: How much the latest items of users count.
        users: Folder of the users' vectors where :attr:`history` has changed them, and of their
            figures; None: :attr:`folder`.
    """

    stage: str
    catalog: Path
    graphs: "GraphPaths"
    settings: TrainingSettings
    evaluation: EvaluationSettings
    folder: Path
    seed: int
    recording: Recording | None = None
    progress: Any = None
    log_every_steps: int = 10
    survival: Survival = Survival()
    inputs: Mapping[str, str] = field(default_factory=dict)
    catalog_uri: str | None = None
    storage: Storage | None = None
    verbosity: int = 0
    features: Path | None = None
    code: Path | None = None
    history: HistorySettings = field(default_factory=HistorySettings)
    users: Path | None = None

    def open_catalog(self) -> Catalog:
        """The catalogue, with the features as they are to be used."""
        if self.catalog_uri and not self.catalog.exists():
            fetch_catalog(self.catalog_uri, self.catalog.parent)
        return replace(Catalog.open(self.catalog), features_folder=self.features)

    def load_code(self) -> None:
        """Imports the modules of the user's own that the settings name, if there are any."""
        for where, name in own_names(self.settings.model_dump()):
            load_own(name, where, self.code)

    @property
    def evaluation_file(self) -> Path:
        """Where the figures go; named by how they are computed."""
        shaping = {"cutoffs", "mask_valid", "num_users"}
        settings = self.evaluation.model_dump(include=shaping, exclude_none=True)
        folder = self.users or self.folder
        return folder / f"evaluation-{digest_of('evaluation', settings, {})}.json"


@dataclass(frozen=True)
class GraphPaths:
    """Folders of sparse matrices (see :class:`egra_dist.graph.csr.Csr`).

    Attributes:
        training: ``R``.
        plain: ``N(A)`` without item-item edges.
        behavior: ``N(A)`` that the model propagates over, merged or plain.
        features: ``S_m`` of each modality that the model sees.
    """

    training: Path
    plain: Path
    behavior: Path
    features: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def of(
        cls, graphs: Path, modalities: Iterable[str], merged: Path | None = None
    ) -> "GraphPaths":
        """What ``write_graphs`` left, and in ``merged`` what ``write_merged`` made of it.

        Args:
            graphs: Folder of the first.
            modalities: Those that the model sees.
            merged: Folder of the second; None: the model propagates over ``plain``.
        """
        behavior, features = graphs / "plain", graphs / "features"
        if merged is not None:
            behavior = merged / "behavior"
            mixed = merged / "features"
            features = mixed if mixed.exists() else features
        of_modalities = {name: features / name for name in modalities}
        return cls(graphs / "training", graphs / "plain", behavior, of_modalities)
