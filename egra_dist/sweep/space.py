"""The search space: which settings are varied, and which values they may take.

Read from a YAML file, checked as strictly as a configuration, and drawn from with a seed: trial
number ``n`` has the same settings on every machine, however many trials are asked for.
"""

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, field_validator, model_validator

from egra_dist.config import read_settings
from egra_dist.config.base import NonNegativeInt, PositiveInt, Settings
from egra_dist.config.errors import describe
from egra_dist.errors import UserError

Values = Annotated[list[Any], Field(min_length=1)]
_DIGITS = 6  # enough for any setting, and short enough to be read


class Distribution(Settings):
    """The values of one setting; exactly one of the fields is given."""

    choice: Values | None = None
    """One of these, drawn with equal probability."""
    grid: Values | None = None
    """Each of these: all combinations of all grids are tried with every draw of the rest."""
    uniform: tuple[float, float] | None = None
    """Bounds of a number, drawn uniformly."""
    log_uniform: tuple[float, float] | None = None
    """Bounds of a number whose logarithm is drawn uniformly; above 0."""
    integer: tuple[int, int] | None = None
    """Bounds, both included."""

    @model_validator(mode="after")
    def _is_one_distribution(self) -> "Distribution":
        if len(self.model_fields_set) != 1:
            names = ", ".join(Distribution.model_fields)
            raise ValueError(f"expected exactly one of {names}")
        if self.bounds and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"{self.kind} = {list(self.bounds)}: the first must be the smaller")
        if self.log_uniform and self.log_uniform[0] <= 0:
            raise ValueError(f"log_uniform = {list(self.log_uniform)}: must be greater than 0")
        return self

    @property
    def kind(self) -> str:
        """Name of the field that is given."""
        (name,) = self.model_fields_set
        return name

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Smallest and greatest value; None where values are listed."""
        return self.uniform or self.log_uniform or self.integer

    def draw(self, random: np.random.Generator) -> Any:
        """A value; grids are not drawn from."""
        if self.choice:
            return self.choice[random.integers(len(self.choice))]
        if self.integer:
            return int(random.integers(*self.integer, endpoint=True))
        if self.uniform:
            return _rounded(random.uniform(*self.uniform))
        assert self.log_uniform, self.kind
        low, high = map(math.log, self.log_uniform)
        return _rounded(math.exp(random.uniform(low, high)))

    def examples(self) -> list[Any]:
        """Every listed value, or the bounds and a value in between, to be checked."""
        if not self.bounds:
            return list(self.choice or self.grid or ())
        low, high = self.bounds
        return [low, high] if self.integer else [low, high, _rounded(low + (high - low) / math.e)]


class SchedulerSettings(Settings):
    """When a trial is stopped early."""

    name: Literal["asha", "none"] = "asha"
    """Asynchronous successive halving (Li et al. 2020), or never."""
    grace_epochs: PositiveInt = 5
    """Epochs that every trial may train; the first rung."""
    reduction_factor: Annotated[float, Field(gt=1)] = 3
    """Of those that reach a rung about one in this many goes on; the next rung is this many
    times higher."""


class SearchSpace(Settings):
    """A file of ``configs/sweeps``."""

    metric: str | None = None
    """Metric of the validation split that is maximised; ``train.metric`` when not given."""
    num_samples: PositiveInt = 1
    """Draws; each is tried with every combination of the grids."""
    max_concurrent: PositiveInt | None = None
    """Trials at the same time; as many as the cluster holds, at most 8, when not given."""
    seed: NonNegativeInt = 0
    """Seed of the draws."""
    scheduler: SchedulerSettings = SchedulerSettings()
    space: Annotated[dict[str, Distribution], Field(min_length=1)]
    """Distributions by the dotted name of the setting."""

    @field_validator("space", mode="before")
    @classmethod
    def _name_the_setting(cls, space: Any) -> Any:
        if not isinstance(space, dict):
            return space
        return {str(path): _distribution(str(path), fields) for path, fields in space.items()}

    def trials(self) -> list[dict[str, Any]]:
        """Settings of every trial, those that differ; more samples only add to the end."""
        distinct = {json.dumps(settings, sort_keys=True): settings for settings in self._draws()}
        return list(distinct.values())

    def _draws(self) -> Iterator[dict[str, Any]]:
        grids = {path: found.grid for path, found in self.space.items() if found.grid}
        others = sorted(self.space.keys() - grids.keys())
        for sample in range(self.num_samples):
            random = np.random.default_rng([self.seed, sample])
            drawn = {path: self.space[path].draw(random) for path in others}
            for values in itertools.product(*grids.values()):
                settings = {**drawn, **dict(zip(grids, values, strict=True))}
                yield {path: settings[path] for path in self.space}


def load_space(path: Path, num_samples: int | None = None) -> SearchSpace:
    """Reads a search space.

    Args:
        path: YAML file.
        num_samples: Takes the place of the file's.

    Raises:
        UserError: If the file is not readable YAML, a key is unknown, or a value is not allowed.
    """
    fields = read_settings(path, "search space")
    return parse_space({**fields, **({"num_samples": num_samples} if num_samples else {})}, path)


def parse_space(fields: dict[str, Any], source: object = "space") -> SearchSpace:
    """Validates a search space; see :func:`load_space` for what it raises."""
    try:
        return SearchSpace.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"{source}: {describe(error, SearchSpace)}") from None


def _distribution(path: str, fields: Any) -> Distribution:
    if path.split(".")[0] == "history":
        raise ValueError(
            f"space.{path}: histories count after the training, with which a trial ends; "
            "a run tries all values of history.shares and history.decays"
        )
    if not isinstance(fields, dict):
        raise ValueError(f"space.{path} = {fields!r}: expected e.g. {{choice: [...]}}")
    try:
        return Distribution.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"space.{path}: {describe(error, Distribution)}") from None


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
