"""What cannot work, found before anything is written."""

from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.exported import exported_files
from egra_dist.catalog.timed import check_times
from egra_dist.config import STAGES, Config, ItemGraphSettings, ModelSettings, modality_shares
from egra_dist.errors import UserError
from egra_dist.extension import load_own, own_names


def check_run(config: Config, catalog: Catalog, last_stage: str) -> None:
    """Compares settings with the catalogue that they are to be applied to.

    Args:
        config: All settings.
        catalog: What is to be learned from.
        last_stage: How far the run is to go.

    Raises:
        UserError: If the stage or a modality is not known, the validation split is empty, or a
            model or an item graph needs modalities that there are not, or histories need times
            that there are not, or code of the user's own cannot be imported.
    """
    check_stage(last_stage)
    if catalog.num_interactions("valid") == 0:
        raise UserError(f"{catalog.path}: the validation split is empty; it selects the best state")
    for stage, training in config.trainings.items():
        _check_model(stage, training.model, catalog)
        for where, name in own_names(training.model_dump()):
            load_own(name, f"{stage}.{where}")
        if training.warm_start is not None:
            exported_files(training.warm_start)
    for graph in config.item_graphs.values():
        _check_item_graph(graph, catalog)
    if config.history.needs_times:
        check_times(catalog)


def check_stage(stage: str) -> None:
    """Whether there is such a stage.

    Raises:
        UserError: If not.
    """
    if stage not in STAGES:
        raise UserError(f"stage {stage!r} is not known; one of {', '.join(STAGES)}")


def _check_model(stage: str, model: ModelSettings, catalog: Catalog) -> None:
    seen = model.seen_of(catalog.modalities)
    for modality in model.modalities or ():
        catalog.features(modality)
    if model.needs_modalities and not seen:
        raise UserError(f"{stage}.model.name = {model.name!r}: needs at least one modality")
    if model.name == "freedom":
        modality_shares(model.freedom.modality_weights, seen, f"{stage}.model.freedom")


def _check_item_graph(graph: ItemGraphSettings, catalog: Catalog) -> None:
    if graph.source not in ("raw", "both"):
        return
    if not catalog.modalities:
        raise UserError(f"item_graph.source = {graph.source!r}: {catalog.path} has no modality")
    modality_shares(graph.modality_weights, catalog.modalities, "item_graph")
