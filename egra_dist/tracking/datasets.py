"""Datasets as MLflow records them: a name, a digest, where it is and what it looks like."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

_MAX_NAME = 500
_MAX_DIGEST = 36
_MAX_PROFILE = 16_000
_CONTEXT = "mlflow.data.context"


def dataset(
    name: str,
    digest: str,
    source: str,
    columns: Mapping[str, str],
    profile: Mapping[str, Any],
    context: str,
) -> dict[str, str]:
    """A dataset, described by what is known of it without reading it.

    Args:
        name: What it is called.
        digest: Identity of its content.
        source: Where it is.
        columns: Type of each column in MLflow's words: ``long``, ``string``, ``float``...
        profile: Counts and other facts.
        context: What it is used for, e.g. ``training``.
    """
    specs = [{"name": column, "type": kind} for column, kind in columns.items()]
    return {
        "name": name[:_MAX_NAME],
        "digest": digest[:_MAX_DIGEST],
        "source_type": "local",
        "source": json.dumps({"uri": source}),
        "schema": json.dumps({"mlflow_colspec": specs}) if specs else "",
        "profile": json.dumps(profile, default=str)[:_MAX_PROFILE],
        "context": context,
    }


def as_input(fields: Mapping[str, str]) -> "DatasetInput":
    """What MLflow's client takes."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    described = {key: value or None for key, value in fields.items() if key != "context"}
    return DatasetInput(Dataset(**described), [InputTag(_CONTEXT, fields["context"])])
