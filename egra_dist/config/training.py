"""One training: a model made of parts, its losses, its optimizers, and when it stops."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from egra_dist.config.base import NonNegativeFloat, PositiveInt, Settings
from egra_dist.config.losses import AlignmentSettings, RankingSettings
from egra_dist.config.models import ModelName, ModelSettings
from egra_dist.config.propagation import PropagationSettings
from egra_dist.config.tables import OptimizerSettings, TableSettings


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
