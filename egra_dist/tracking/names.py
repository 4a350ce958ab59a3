"""Names and values in the form MLflow accepts."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_NAME_LENGTH = 250
SWEEP_TAG = "sweep"
"""Names the search that a run is, or belongs to."""
_NOT_ALLOWED = re.compile(r"[^\w\-. :/]", re.ASCII)


def clean_name(name: str) -> str:
    """Turns a metric, parameter or tag name into one that MLflow accepts.

    ``recall@20`` becomes ``recall_at_20``; other characters than letters, digits and ``_-. :/``
    become ``_``; a name that MLflow would read as a path out of its folder loses its dots.
    """
    cleaned = _NOT_ALLOWED.sub("_", name.replace("@", "_at_"))[:MAX_NAME_LENGTH]
    parts = [part for part in cleaned.split("/") if part.strip(".")]
    return "/".join(parts) or "_"


def clean_value(value: float) -> float:
    """The value as it is delivered: infinities become NaN.

    MLflow keeps NaN, but stores an infinity as 1.8e308, which flattens every other point of its
    chart.
    """
    return value if math.isfinite(value) else math.nan


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as flat parameters: ``{"a": {"b": [1]}}`` becomes ``{"a.b": "[1]"}``."""
    return dict(_flat_items(settings, prefix))


def numbers_and_words(
    facts: Mapping[str, Any], prefix: str = ""
) -> tuple[dict[str, float], dict[str, str]]:
    """Nested facts as flat metrics and tags: ``{"a": {"b": 1}}`` becomes ``{"a/b": 1.0}``."""
    numbers: dict[str, float] = {}
    words: dict[str, str] = {}
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            inner = numbers_and_words(value, f"{name}/")
            numbers |= inner[0]
            words |= inner[1]
        elif isinstance(value, (int, float)):
            numbers[name] = float(value)
        else:
            words[name] = str(value)
    return numbers, words


def _flat_items(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat_items(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield clean_name(f"{prefix}{key}"), text
