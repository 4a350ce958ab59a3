"""The behaviour graph by Ray tasks: the same bytes."""

import filecmp
import os

import numpy as np
import pytest

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.cluster.tasks import ray_map
from egra_dist.config import ItemGraphSettings
from egra_dist.graph import buckets
from egra_dist.graph.behavior import write_behavior
from egra_dist.graph.item import write_merged
from egra_dist.graph.knn import KnnGraph

pytestmark = pytest.mark.timeout(120)


def build(catalog, folder, run):
    write_behavior(catalog, folder, folder / "work", run)
    near = (np.arange(300)[:, None] + [1, 7, 20]) % 300
    KnnGraph(near.astype(np.int32), np.ones((300, 3), np.float32)).save(folder / "knn")
    write_merged(folder, folder / "knn", ItemGraphSettings(), folder, run)


def test_graphs_by_ray_tasks_are_those_of_one_process(tmp_path, local_ray, monkeypatch):
    monkeypatch.setattr(buckets, "ENTRIES_PER_BLOCK", 2000)
    settings = SynthSettings(num_items=300, num_users=400, num_interactions=4000)
    catalog = synthesize(settings, tmp_path / "catalog")
    build(catalog, tmp_path / "one", map)
    build(catalog, tmp_path / "many", ray_map)
    names = [f"{kind}/{array}.npy" for kind in ("training", "plain", "behavior")
             for array in ("indptr", "indices")]  # fmt: skip
    names += ["plain/values.npy", "behavior/values.npy"]
    same, *_ = filecmp.cmpfiles(tmp_path / "one", tmp_path / "many", names, shallow=False)
    assert same == names


def test_results_come_in_order_from_other_processes(local_ray):
    numbers = list(ray_map(lambda number: (number, os.getpid()), range(20)))
    assert [number for number, _ in numbers] == list(range(20))
    assert os.getpid() not in {process for _, process in numbers}
