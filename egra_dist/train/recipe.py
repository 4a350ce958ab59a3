"""What a training is made from, beside artifacts: its name follows from it."""

from typing import Any

from egra_dist.catalog.exported import exported_identity
from egra_dist.config import TableSettings, TrainingSettings
from egra_dist.extension import code_digests


def training_recipe(
    settings: TrainingSettings, seed: int, num_users: int | None = None
) -> dict[str, Any]:
    """What decides the result, beside the data and the graphs.

    Args:
        settings: The training; of the user's code and earlier vectors that it names the content.
        seed: Of what is drawn at random.
        num_users: How many decide which state is the best; None for all.
    """
    fields = settings.model_dump(mode="json")
    recipe = {**fields, "seed": seed, **code_digests(fields)}
    if settings.tables == TableSettings():
        del recipe["tables"]  # trainings of earlier versions keep their names
    if settings.warm_start is None:
        del recipe["warm_start"]
    else:
        recipe["warm_start"] = exported_identity(settings.warm_start)
    if num_users is not None:
        recipe["num_users"] = num_users
    return recipe
