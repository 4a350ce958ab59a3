"""Every file in configs/ is loaded and planned, whatever it is a file of."""

import json
from pathlib import Path

import pytest

from egra_dist.config import ClusterSettings, load_config
from egra_dist.plan.plan import make_plan
from egra_dist.plan.sizes import sizes_of_counts
from egra_dist.sweep.base import changed, prepare
from egra_dist.sweep.space import load_space

CONFIGS = Path(__file__).parents[3] / "configs"
SMALL = sizes_of_counts(20_000, 7_000, 120_000, {"image": 128, "text": 384})
HUGE = sizes_of_counts(50_000_000, 100_000_000, 825_000_000, {"image": 64})
GB = 2**30


def files(folder: Path) -> list:
    found = sorted(path for path in folder.iterdir() if path.is_file())
    assert found and all(path.suffix == ".yaml" for path in found)
    return [pytest.param(path, id=path.stem) for path in found]


def plan(config, sizes=SMALL):
    return make_plan(config, sizes, config.cluster.num_workers, 8 * GB)


def test_no_folder_of_configurations_is_left_out():
    assert {path.name for path in CONFIGS.iterdir() if path.is_dir()} == {"cluster", "sweeps"}


@pytest.mark.parametrize("path", files(CONFIGS))
def test_configuration(path):
    config = load_config(path)
    made = plan(config)
    needs_pretraining = any(graph.is_pretrained for graph in config.item_graphs.values())
    expected = set(config.trainings) - (set() if needs_pretraining else {"pretrain"})
    assert made.fits
    assert set(made.trainings) == expected
    assert all(0 < training.total < 8 * GB for training in made.trainings.values())
    assert {"features/image", "train.knn/vectors"} <= set(made.searches)
    json.dumps(made.as_json())
    assert not plan(config, HUGE).fits


@pytest.mark.parametrize("path", files(CONFIGS / "cluster"))
def test_cluster(path):
    config = load_config(CONFIGS / "default.yaml", cluster=path)
    assert config.cluster != ClusterSettings()
    made = plan(config)
    assert made.fits
    workers = config.cluster.num_workers
    assert made.num_workers == workers
    assert made.trainings["train"].worker.users == -(-20_000 // workers)


@pytest.mark.parametrize("path", files(CONFIGS / "sweeps"))
def test_search_space(path):
    space = load_space(path)
    base = prepare(load_config(CONFIGS / "default.yaml"), space, path.name)
    trials = space.trials()
    assert len(trials) > 1
    assert all(plan(changed(base, settings, path.name)).fits for settings in trials)
