from pathlib import Path

import pytest

from egra_dist.catalog.catalog import Catalog
from egra_dist.config import Config, parse_config
from egra_dist.errors import UserError
from egra_dist.manifest import Manifest
from egra_dist.pipeline import run_pipeline


def catalog(num_valid=1):
    """A catalogue as far as its manifest goes."""
    counts = {
        "num_users": 3,
        "num_items": 3,
        "num_interactions": {"train": 3, "valid": num_valid, "test": 0},
        "modalities": {"text": {"dim": 4}},
    }
    return Catalog(Path("some/catalog"), Manifest("catalog", "0", counts=counts))


@pytest.mark.parametrize(
    ("given", "stage", "num_valid", "words"),
    [
        ({}, "trian", 1, "stage 'trian' is not known; one of features, graphs, pretrain"),
        ({}, "export", 0, "some/catalog: the validation split is empty"),
        ({"pretrain": {"model": {"modalities": ["smell"]}}}, "export", 1, "no modality 'smell'"),
        (
            {"item_graph": {"source": "raw", "modality_weights": {"smell": 1}}},
            "export",
            1,
            r"item_graph.modality_weights: no modality 'smell'; there are \['text'\]",
        ),
        (
            {"item_graph": {"source": "raw", "modality_weights": {"text": 0}}},
            "export",
            1,
            "item_graph.modality_weights = {'text': 0.0}: one must be above 0",
        ),
        (
            {"train": {"model": {"name": "vbpr", "modalities": []}}},
            "export",
            1,
            "train.model.name = 'vbpr': needs at least one modality",
        ),
        (
            {"train": {"model": {"name": "freedom", "freedom": {"modality_weights": {"t": 1}}}}},
            "export",
            1,
            "train.model.freedom.modality_weights: no modality 't'",
        ),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(
    tmp_path, given, stage, num_valid, words
):
    with pytest.raises(UserError, match=words):
        run_pipeline(parse_config(given), catalog(num_valid), tmp_path / "run", stage)
    assert not list(tmp_path.iterdir())


def test_every_training_is_listed():
    config = parse_config({"baselines": {"light": {"model": {"name": "lightgcn"}}}})
    assert list(config.trainings) == ["pretrain", "light", "train"]
    assert list(Config().trainings) == ["pretrain", "train"]
