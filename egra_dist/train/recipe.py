"""What a training is made from, beside artifacts: its name follows from it."""

from typing import Any

from egra_dist.catalog.exported import exported_identity
from egra_dist.config import TableSettings, TrainingSettings
from egra_dist.extension import code_digests


def training_recipe(settings: TrainingSettings, seed: int) -> dict[str, Any]:
    """Settings, seed, and the content of what the settings name: user's code, earlier vectors."""
    fields = settings.model_dump(mode="json")
    recipe = {**fields, "seed": seed, **code_digests(fields)}
    if settings.tables == TableSettings():
        del recipe["tables"]  # trainings of earlier versions keep their names
    if settings.warm_start is None:
        del recipe["warm_start"]
    else:
        recipe["warm_start"] = exported_identity(settings.warm_start)
    return recipe
