"""The configuration that a search starts from, and what a trial makes of it."""

from collections.abc import Iterable, Mapping
from typing import Any

from egra_dist.config import STAGES, Config, parse_config
from egra_dist.errors import UserError
from egra_dist.sweep.space import SearchSpace

_CHANGES_NOTHING_LEARNED = ("cluster", "tracking", "evaluation", "baselines")
_ONE_FOR_ALL = {
    "train.metric": "trials are compared by one metric; set it by 'metric'",
    "train.model.name": "models have different defaults; search each model by itself",
    "pretrain.model.name": "models have different defaults; search with each of them by itself",
}
_FIRST_STAGE = {
    "features": "features",
    "feature_graph": "graphs",
    "pretrain": "pretrain",
    "item_graph": "knn",
    "item_graph.source": "pretrain",
    "item_graph.weight": "merge",
    "item_graph.direction": "merge",
    "item_graph.beta": "merge",
    "item_graph.modality_share": "merge",
    "train": "train",
}
"""The first stage that a setting, or a section, has an effect on; the first of all by default."""


def changed(config: Config, settings: Mapping[str, Any], source: str = "settings") -> Config:
    """A configuration with some settings changed.

    Args:
        config: Where it starts from.
        settings: Values by dotted name.
        source: Named in errors.

    Raises:
        UserError: If a setting is unknown, or its value is not allowed.
    """
    fields = config.model_dump(mode="json", exclude_unset=True)
    for path, value in settings.items():
        *parents, last = path.split(".")
        section = fields
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise UserError(f"{source}: {path}: {parent} has no settings below it")
        section[last] = value
    return parse_config(fields, source)


def prepare(config: Config, space: SearchSpace, source: str = "space") -> Config:
    """The configuration that all trials start from, after checking the space against it.

    Models beside the one that is searched are left out, and the metric of the search is the one
    that selects a training's best state, so that a trial has one score.

    Raises:
        UserError: If a setting of the space is unknown, cannot be searched, or may take a value
            that is not allowed.
    """
    for path in space.space:
        _refuse_what_cannot_be_searched(path, source)
    metric = {"train.metric": space.metric} if space.metric else {}
    base = changed(config, {**metric, "baselines": {}}, source)
    examples = {path: distribution.examples() for path, distribution in space.space.items()}
    one_of_each = {path: values[0] for path, values in examples.items()}
    for path, values in examples.items():
        for value in values:  # beside what others may draw, not what the configuration has there
            changed(base, {**one_of_each, path: value}, source)
    return base


def _refuse_what_cannot_be_searched(path: str, source: str) -> None:
    section = path.partition(".")[0]
    if section in _CHANGES_NOTHING_LEARNED:
        raise UserError(f"{source}: space.{path}: nothing in {section} changes what EGRA learns")
    if path in _ONE_FOR_ALL:
        raise UserError(f"{source}: space.{path}: {_ONE_FOR_ALL[path]}")


def last_shared_stage(paths: Iterable[str]) -> str | None:
    """The last stage that settings of these names do not change; None where they change all."""
    first = min(STAGES.index(_first_stage(path)) for path in paths)
    return STAGES[first - 1] if first else None


def _first_stage(path: str) -> str:
    while path not in _FIRST_STAGE:
        path, separator, _ = path.rpartition(".")
        if not separator:
            return STAGES[0]
    return _FIRST_STAGE[path]
