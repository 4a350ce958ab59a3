"""The typed settings: what is learned, and apart from it where it runs.

A configuration is a YAML file plus dotted overrides (``train.alignment.focus=hard``). An unknown
key or a bad value is an error that names its path, the value, what is allowed, and the nearest
right key. Every default stands here, once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from egra_dist.errors import UserError
from egra_dist.settings_errors import describe

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AlignmentSettings(Settings):
    """How modality and behaviour representations are pulled together (METHOD, stage 3)."""

    focus: Literal["uniform", "hard", "easy"] = "hard"
    """Who gets more weight: everybody the same, the less aligned, or the more aligned."""
    focus_temperature: PositiveFloat = 2.0
    """Temperature of the softmax that turns alignment degrees into entity weights."""
    ramp: Literal["constant", "linear", "cosine", "exponential", "tanh"] = "linear"
    """How the strength grows from 0 to ``lambda_max``."""
    ramp_steps: PositiveInt = 100
    """Number of optimisation steps until the strength reaches ``lambda_max``."""
    lambda_max: NonNegativeFloat = 0.01
    """Final strength of the alignment loss."""
    temperature: Annotated[float, Field(ge=0.02)] = 0.2
    """Temperature of the InfoNCE loss; below 0.02 its exponentials leave the range of float32."""
    unique_ids: bool = False
    """Whether an entity that occurs twice in a batch counts once."""


class ModelSettings(Settings):
    """A model is a set of parts: which graph it propagates on, and whether it sees modalities."""

    name: Literal["lightgcn", "mgcn", "egra"] = "egra"
    dim: Annotated[int, Field(ge=4, multiple_of=4)] = 64
    """Width of all representations (a multiple of 4, as FBGEMM's kernels need)."""
    num_layers: NonNegativeInt = 2
    """Propagation layers over the behaviour graph."""
    modalities: list[str] | None = None
    """Modalities used; all of the catalogue's when not given."""

    @property
    def uses_modalities(self) -> bool:
        """Whether the model has a modality branch."""
        return self.name != "lightgcn"

    @property
    def uses_item_graph(self) -> bool:
        """Whether item-item edges are merged into the behaviour graph."""
        return self.name == "egra"


class OptimizerSettings(Settings):
    """Embedding tables and dense parameters each have their own optimizer."""

    tables: Literal["adam", "rowwise_adagrad"] = "adam"
    """Optimizer of the sharded user and item tables."""
    learning_rate: PositiveFloat = 1e-3
    """Learning rate of the tables."""
    dense_learning_rate: PositiveFloat = 1e-3
    """Learning rate of the dense parameters (always Adam)."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.96
    """Both rates are multiplied by ``decay ** (epoch / decay_epochs)``."""
    decay_epochs: PositiveInt = 50


class TrainingSettings(Settings):
    """One training: a model, its losses, and when to stop."""

    model: ModelSettings = ModelSettings()
    alignment: AlignmentSettings = AlignmentSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    batch_size: PositiveInt = 2048
    """Triplets per step over all workers together (the global batch)."""
    regularization: NonNegativeFloat = 1e-4
    """Weight of the squared norm of the batch's final vectors."""
    max_epochs: PositiveInt = 200
    max_steps: PositiveInt | None = None
    """Stops after this many steps, whatever the epoch; for smoke tests."""
    patience: PositiveInt = 20
    """Evaluations without a better validation score before training stops."""
    evaluate_every: PositiveInt = 1
    """Epochs between evaluations on the validation split."""
    metric: str = "recall_at_20"
    """The validation metric that selects the best state."""


class UniformAlignmentSettings(AlignmentSettings):
    """The fixed alignment of MGCN: everybody the same, at full strength from the first step."""

    focus: Literal["uniform", "hard", "easy"] = "uniform"
    ramp: Literal["constant", "linear", "cosine", "exponential", "tanh"] = "constant"


class PretrainModelSettings(ModelSettings):
    """The multimodal recommender whose item vectors the item graph is built from."""

    name: Literal["lightgcn", "mgcn", "egra"] = "mgcn"


class PretrainSettings(TrainingSettings):
    """The first training (METHOD, stage 1)."""

    model: PretrainModelSettings = PretrainModelSettings()
    alignment: UniformAlignmentSettings = UniformAlignmentSettings()


class FeatureGraphSettings(Settings):
    """The kNN graph over each modality's raw features, for the modality branch."""

    k: Annotated[int, Field(ge=2, le=200)] = 10
    """Neighbours per item, itself among them."""


class ItemGraphSettings(Settings):
    """The item-item graph that is merged into the behaviour graph (METHOD, stage 2)."""

    source: Literal["pretrained", "none"] = "pretrained"
    """Whose vectors the neighbours are searched in."""
    k: PositiveInt = 10
    weight: Literal["binary", "cosine"] = "binary"
    direction: Literal["directed", "union", "mutual"] = "union"
    """Edges as found, made symmetric by adding the reverse, or kept only where both agree."""
    beta: NonNegativeFloat = 0.2
    """Scale of the item-item block against the user-item block."""


class EvaluationSettings(Settings):
    """Full ranking: every item for every user with a held-out item."""

    cutoffs: Annotated[list[PositiveInt], Field(min_length=1)] = [5, 10, 20, 50]
    mask_valid: bool = False
    """Whether validation positives are masked when testing."""
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
    environment: dict[str, str] = {}
    """Environment variables of the workers, e.g. ``GLOO_SOCKET_IFNAME``."""


class Config(Settings):
    """All settings of a run."""

    seed: NonNegativeInt = 0
    baselines: dict[str, TrainingSettings] = {}
    """Models that are trained and evaluated beside the pretrained one and EGRA, by name."""
    feature_graph: FeatureGraphSettings = FeatureGraphSettings()
    pretrain: PretrainSettings = PretrainSettings()
    item_graph: ItemGraphSettings = ItemGraphSettings()
    train: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    tracking: TrackingSettings = TrackingSettings()
    cluster: ClusterSettings = ClusterSettings()

    @property
    def trainings(self) -> dict[str, TrainingSettings]:
        """Every training of a run by its stage."""
        return {"pretrain": self.pretrain, **self.baselines, "train": self.train}

    @model_validator(mode="after")
    def _metrics_are_computed(self) -> "Config":
        names = [f"{name}_at_{k}" for name in METRICS for k in self.evaluation.cutoffs]
        for stage, training in self.trainings.items():
            if training.metric not in names:
                raise ValueError(
                    f"{stage}.metric: {training.metric!r} is not computed; one of {names}"
                )
        return self

    @model_validator(mode="after")
    def _baselines_have_names_of_their_own(self) -> "Config":
        for name in self.baselines:
            if name in STAGES or not name.isidentifier():
                raise ValueError(
                    f"baselines.{name}: {name!r} cannot be the name of a model; "
                    f"letters, digits and _, and none of {', '.join(STAGES)}"
                )
        return self


STAGES = ("graphs", "pretrain", "knn", "merge", "train", "evaluate", "export")
METRICS = ("recall", "ndcg", "precision", "map", "hit_rate")


def load_config(
    path: Path | None,
    overrides: Sequence[str] = (),
    cluster: Path | None = None,
) -> Config:
    """Reads a configuration.

    Args:
        path: YAML file of what is learned; the defaults when None.
        overrides: ``a.b=value`` strings; the values are read as YAML.
        cluster: YAML file of where it runs: the content of the ``cluster`` section.

    Returns:
        The validated settings.

    Raises:
        UserError: If a file is not readable YAML, a key is unknown, or a value is not allowed.
    """
    fields = _read_yaml(path) if path else {}
    if cluster:
        fields["cluster"] = {**fields.get("cluster", {}), **_read_yaml(cluster)}
    for override in overrides:
        _apply_override(fields, override)
    return parse_config(fields, source=str(path) if path else "settings")


def parse_config(fields: Mapping[str, Any], source: str = "settings") -> Config:
    """Validates settings; see :func:`load_config` for what it raises."""
    try:
        return Config.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"{source}: {describe(error, Config)}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        fields = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable YAML file: {reason}") from None
    if fields is None:
        return {}
    if not isinstance(fields, dict):
        raise UserError(f"{path}: expected a mapping of settings, found {type(fields).__name__}")
    return fields


def _apply_override(fields: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"--set {override!r}: expected KEY=VALUE, e.g. train.batch_size=1024")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {key}: {text!r} is not a readable value") from None
    *parents, last = key.split(".")
    for parent in parents:
        child = fields.setdefault(parent, {})
        if not isinstance(child, dict):
            raise UserError(f"--set {override!r}: {parent} has no settings below it")
        fields = child
    fields[last] = value
