"""Reads a configuration: a YAML file, dotted overrides, and where it runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from egra_dist.config.errors import describe
from egra_dist.config.root import Config
from egra_dist.errors import UserError


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
    fields = read_settings(path, "configuration file") if path else {}
    if cluster:
        fields["cluster"] = {
            **fields.get("cluster", {}),
            **read_settings(cluster, "configuration file"),
        }
    for override in overrides:
        _apply_override(fields, override)
    return parse_config(fields, source=str(path) if path else "settings")


def parse_config(fields: Mapping[str, Any], source: str = "settings") -> Config:
    """Validates settings; see :func:`load_config` for what it raises."""
    try:
        return Config.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"{source}: {describe(error, Config)}") from None


def read_settings(path: Path, what: str) -> dict[str, Any]:
    """Reads a mapping from a YAML file; an empty file is an empty mapping.

    Args:
        path: The file.
        what: What it should hold, for the message.

    Raises:
        UserError: If it is not there, not readable, or holds something else.
    """
    try:
        fields = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such {what}") from None
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
