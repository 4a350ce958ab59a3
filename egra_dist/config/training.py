"""One training: a model made of parts, its losses, its optimizers, and when it stops."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from egra_dist.config.base import (
    NonNegativeFloat,
    NonNegativeInt,
    OneOf,
    PositiveFloat,
    PositiveInt,
    Settings,
    Share,
)
from egra_dist.config.propagation import PropagationSettings
from egra_dist.config.tables import OptimizerSettings, TableSettings
from egra_dist.extension import is_own

MODELS = ("lightgcn", "vbpr", "bm3", "freedom", "mgcn", "gume", "egra")
RAMPS = ("constant", "linear", "cosine", "exponential", "tanh")
ModelName = Annotated[str, OneOf(MODELS)]


class AlignmentSettings(Settings):
    """How modality and behaviour representations are pulled together."""

    focus: Literal["uniform", "hard", "easy"] = "hard"
    """Who gets more weight: everybody the same, the less aligned, or the more aligned."""
    focus_temperature: PositiveFloat = 2.0
    """Temperature of the softmax that turns alignment degrees into entity weights."""
    ramp: Annotated[str, OneOf(RAMPS)] = "linear"
    """How the strength grows from ``lambda_start`` to ``lambda_max``; ``constant``: it is there
    from the first step. Your own: see docs/extend.md."""
    ramp_steps: PositiveInt = 100
    """Number of optimisation steps until the strength reaches ``lambda_max``."""
    lambda_start: NonNegativeFloat = 0
    """Strength of the alignment loss at the first step; not above ``lambda_max``."""
    lambda_max: NonNegativeFloat = 0.01
    """Final strength of the alignment loss."""
    temperature: Annotated[float, Field(ge=0.02)] = 0.2
    """Temperature of the InfoNCE loss; below 0.02 its exponentials leave the range of float32."""
    unique_ids: bool = False
    """Whether an entity that occurs twice in a batch counts once."""

    @model_validator(mode="after")
    def _never_decreases(self) -> "AlignmentSettings":
        if self.lambda_start > self.lambda_max:
            raise ValueError(
                f"alignment.lambda_start = {self.lambda_start}: "
                f"must not be above lambda_max = {self.lambda_max}"
            )
        return self


class RankingSettings(Settings):
    """How a user's items are told from all others."""

    loss: Literal["bpr", "softmax"] = "bpr"
    """One negative per positive (Rendle et al. 2009), or a softmax over sampled items."""
    score: Literal["inner", "cosine"] = "inner"
    """Score of a user and an item: inner product of the final vectors, or their cosine."""
    norm_power: Annotated[float, Field(ge=0, le=1)] = 1.0
    """When items are ranked, final vectors that were trained by their cosine are divided by their
    length to this power: 1 ranks by cosine, 0 by inner product, and what lies between trusts
    items with more interactions, whose vectors are longer, a little more."""
    temperature: Annotated[float, Field(ge=0.02)] = 0.2
    """Temperature of the softmax."""
    num_negatives: NonNegativeInt = 1024
    """Uniform negatives of the softmax beside the batch's positives; at most the batch size."""
    negatives: Literal["seen", "all"] = "seen"
    """Where uniform negatives come from: items with a training interaction, as the papers have it,
    or all. With ``seen`` nothing tells a model that items without interactions are not wanted:
    with a softmax over cosines and modalities, they can fill its rankings."""
    negative_power: Annotated[float, Field(ge=0, le=1)] = 0
    """Negatives are drawn in proportion to an item's training interactions to this power: 0
    uniformly, 1 by popularity. Above 0, items without interactions are never drawn."""
    log_q: bool = True
    """Whether the softmax is corrected for how often each item is sampled."""


class FreedomSettings(Settings):
    """What only FREEDOM has."""

    edge_dropout: Share = 0.8
    """Share of the interactions that an epoch leaves out of the behaviour graph."""
    item_layers: PositiveInt = 1
    """Propagation layers over the frozen item graph."""
    modality_weights: dict[str, NonNegativeFloat] = {}
    """Weight of each modality's feature graph; 1 where not given."""
    modality_loss: NonNegativeFloat = 1e-3
    """Weight of the ranking loss between users and projected features."""


class Bm3Settings(Settings):
    """What only BM3 has."""

    dropout: Share = 0.5
    """Share of a target that is dropped."""
    modality_loss: NonNegativeFloat = 2.0
    """Weight of the losses between modalities and behaviour."""


class ModelSettings(Settings):
    """A model is a set of parts: which graph it propagates on, and whether it sees modalities."""

    name: ModelName = "egra"
    """EGRA; MGCN and GUME, which are EGRA with other graphs and a fixed alignment; LightGCN, its
    behaviour branch; VBPR, FREEDOM and BM3, which are models of their own. Your own:
    see docs/extend.md."""
    dim: Annotated[int, Field(ge=4, multiple_of=4)] = 64
    """Width of all representations (a multiple of 4, as FBGEMM's kernels need)."""
    num_layers: NonNegativeInt = 2
    """Propagation layers over the behaviour graph."""
    modalities: list[str] | None = None
    """Modalities used; all of the catalogue's when not given."""

    fusion: Literal["sum", "normalized"] = "sum"
    """How behaviour and modalities become one: ``H + side_weight * Side``, or the same of vectors
    of length 1 (with a softmax over cosines nothing else makes ``Side`` grow beside ``H``)."""
    side_weight: NonNegativeFloat = 1.0
    """Weight of what modalities say."""
    modality_dropout: Share = 0
    """Share of the batch's rows that lose a modality, drawn for each modality apart."""
    freedom: FreedomSettings = FreedomSettings()
    bm3: Bm3Settings = Bm3Settings()

    @property
    def user_dim(self) -> int:
        """Width of the user table: VBPR's users hold a second half for what items look like."""
        return 2 * self.dim if self.name == "vbpr" else self.dim

    @property
    def uses_modalities(self) -> bool:
        """Whether the model has a modality branch."""
        return self.name != "lightgcn"

    def seen_of(self, modalities: Iterable[str]) -> tuple[str, ...]:
        """Those of a catalogue's modalities that the model sees."""
        chosen = modalities if self.modalities is None else self.modalities
        return tuple(chosen) if self.uses_modalities else ()

    @property
    def needs_modalities(self) -> bool:
        """Whether the model is nothing without a modality."""
        return self.name in ("vbpr", "freedom", "bm3")

    @property
    def can_be_sampled(self) -> bool:
        """Whether it can be trained on sampled neighbourhoods."""
        return self.name in ("lightgcn", "mgcn", "gume", "egra")

    @property
    def uses_item_graph(self) -> bool:
        """Whether item-item edges are merged into the behaviour graph."""
        return self.name in ("egra", "gume") or is_own(self.name)


class TrainingSettings(Settings):
    """One training: a model, its losses, and when to stop."""

    model: ModelSettings = ModelSettings()
    ranking: RankingSettings = RankingSettings()
    alignment: AlignmentSettings = AlignmentSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    propagation: PropagationSettings = PropagationSettings()
    tables: TableSettings = TableSettings()
    batch_size: PositiveInt = 2048
    """Triplets per step over all workers together (the global batch)."""
    regularization: NonNegativeFloat = 1e-4
    """Weight of the squared norm of the batch's final vectors."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of dense products: of all pairs of a batch in softmax and alignment, and of features
    and representations with weights in the modality branch. On a processor without AVX512-BF16 or
    AMX ``bfloat16`` takes twice as long as ``float32``."""
    warm_start: Path | None = None
    """Folder of an earlier run, or of its ``export``: tables start from its vectors, by raw id, and
    ids that it did not know from their neighbours in the feature graphs or the behaviour graph."""
    max_epochs: PositiveInt = 200
    """Passes over the training interactions, at most."""
    max_steps: PositiveInt | None = None
    """Stops after this many steps, whatever the epoch; for smoke tests."""
    patience: PositiveInt = 20
    """Evaluations without a better validation score before training stops."""
    evaluate_every: PositiveInt = 1
    """Epochs between evaluations on the validation split."""
    metric: str = "recall_at_20"
    """The validation metric that selects the best state."""

    @model_validator(mode="after")
    def _model_can_be_sampled(self) -> "TrainingSettings":
        if self.propagation.mode == "sampled" and not self.model.can_be_sampled:
            raise ValueError(
                f"propagation.mode = 'sampled': {self.model.name} is trained on the whole graph; "
                f"lightgcn, mgcn, gume and egra can be sampled"
            )
        return self

    @model_validator(mode="after")
    def _tables_can_be_small(self) -> "TrainingSettings":
        optimizer, mode = self.optimizer, self.propagation.mode
        needed = ("rowwise_adagrad", "sampled")
        if optimizer.table_type != "float32" and (optimizer.tables, mode) != needed:
            raise ValueError(
                f"optimizer.table_type = {optimizer.table_type!r} needs optimizer.tables = "
                f"'rowwise_adagrad' and propagation.mode = 'sampled', not {optimizer.tables!r} "
                f"and {mode!r}"
            )
        return self

    @model_validator(mode="after")
    def _torchrec_looks_up_samples(self) -> "TrainingSettings":
        if self.tables.lookup == "direct":
            return self
        if self.propagation.mode != "sampled":
            raise ValueError(
                f"tables.lookup = 'torchrec': needs propagation.mode = 'sampled', "
                f"not {self.propagation.mode!r}"
            )
        if self.tables.managed_collision.is_used and self.warm_start:
            raise ValueError(
                f"warm_start = {str(self.warm_start)!r}: not with tables.managed_collision, where "
                "ids have no rows before the first step"
            )
        if self.optimizer.table_type != "float32":
            raise ValueError(
                f"optimizer.table_type = {self.optimizer.table_type!r}: tables.lookup = "
                f"'torchrec' needs 'float32'"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_model(cls, fields: Any) -> Any:
        """Named models differ in the defaults of their parts."""
        if not isinstance(fields, Mapping):
            return fields
        model = fields.get("model")
        given = model.get("name") if isinstance(model, Mapping) else getattr(model, "name", None)
        name = given or cls.model_fields["model"].default.name
        return _with_defaults(fields, _DEFAULTS.get(str(name), {}))


def _with_defaults(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Nested fields, and the defaults of those that are not there."""
    result = {**defaults, **fields}
    for key, value in defaults.items():
        if isinstance(value, Mapping) and isinstance(fields.get(key), Mapping):
            result[key] = _with_defaults(fields[key], value)
    return result


_FIXED_ALIGNMENT = {"focus": "uniform", "ramp": "constant"}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "mgcn": {"alignment": _FIXED_ALIGNMENT},
    "gume": {"alignment": _FIXED_ALIGNMENT},
}
"""Where a named model differs from the defaults above."""


class PretrainModelSettings(ModelSettings):
    """The recommender whose item vectors the item graph is built from."""

    name: ModelName = "mgcn"
    """As in any training."""


class PretrainSettings(TrainingSettings):
    """The first training, of the recommender that the item graph is built from."""

    model: PretrainModelSettings = PretrainModelSettings()
