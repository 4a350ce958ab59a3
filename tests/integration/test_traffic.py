"""What comes to a worker in a step is what was planned."""

import os
from itertools import islice

import pytest
from ranks import run_on_ranks
from test_models_ranks import task_of
from test_training_ranks import CPU, train_on_rank, with_folder

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.config import ItemGraphSettings
from egra_dist.model.exchange import traffic
from egra_dist.plan.sizes import sizes_of_catalog
from egra_dist.plan.traffic import bytes_per_step
from egra_dist.train.setup import assemble

NUM_RANKS, NUM_STEPS = 2, 4
LOGGED = "system/received_mib_per_step"
CASES = {
    "lightgcn": ["train.model.name=lightgcn"],
    "freedom": ["train.model.name=freedom"],
    "egra": ["train.model.name=egra"],
    "sampled": [
        "train.model.name=egra",
        "train.propagation.mode=sampled",
        "train.propagation.user_item=[2]",
        "train.propagation.item_item=[2]",
        "train.propagation.modality_items=2",
        "train.propagation.feature_neighbors=1",
    ],
}


def measure(tasks):
    """Bytes that come to this rank in a step, of each training; and what one of them logs."""
    os.environ["LOCAL_WORLD_SIZE"] = "0"  # as on machines of their own
    found = []
    for task in tasks:
        parts = assemble(task, CPU)
        before = traffic.received
        for step, batch in enumerate(islice(parts.propagation.epoch(0), NUM_STEPS)):
            rows = parts.propagation.rows(batch)
            parts.model.losses(rows, batch.shares, step).total.backward()
            parts.optimizers.step()
        found.append((traffic.received - before) / NUM_STEPS)
    points, _ = train_on_rank(tasks[0])
    logged = [point[LOGGED] for _, point in points if LOGGED in point]
    return found, logged


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    settings = SynthSettings(num_items=2000, num_users=3000, num_interactions=30_000, dim=12)
    return synthesize(settings, tmp_path_factory.mktemp("traffic") / "catalog")


def test_bytes_of_a_step_are_those_of_the_plan(catalog, tmp_path):
    tasks = [
        with_folder(
            task_of("egra", catalog, tmp_path, *overrides, "train.max_epochs=1"), tmp_path / name
        )
        for name, overrides in CASES.items()
    ]
    results = run_on_ranks(measure, NUM_RANKS, tasks)
    sizes = sizes_of_catalog(catalog)
    for number, (name, task) in enumerate(zip(CASES, tasks, strict=True)):
        graph = ItemGraphSettings() if name in ("egra", "sampled") else None
        planned = bytes_per_step(sizes, task.settings, graph, ItemGraphSettings().k, NUM_RANKS)
        found = max(figures[number] for figures, _ in results)
        assert found == pytest.approx(planned, rel=0.15), name
    (_, logged), _ = results
    # The last batch of an epoch is smaller.
    assert logged == [pytest.approx(results[0][0][0] / 2**20, rel=0.1)]
