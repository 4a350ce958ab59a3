"""Histories: the best share is taken, and 1 and 2 workers take the same."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from ranks import run_on_ranks

from egra_dist.catalog.catalog import SPLITS, Catalog
from egra_dist.catalog.writer import writing_catalog
from egra_dist.config import Config, HistorySettings
from egra_dist.evaluate.protocol import evaluate_vectors
from egra_dist.evaluate.split import Split
from egra_dist.graph.behavior import training_matrix
from egra_dist.graph.history import means_of_latest
from egra_dist.train import worker
from egra_dist.train.task import HISTORY, GraphPaths, Task

NUM_USERS, NUM_ITEMS, DIM = 61, 40, 8
TRIED = HistorySettings(shares=[0, 0.4, 1], decays=[1, 0.2])


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Task:
    """Users choose at random at first, then what is near to what they chose just before."""
    folder, random = tmp_path_factory.mktemp("histories"), np.random.default_rng(0)
    items = random.standard_normal((NUM_ITEMS, DIM)).astype(np.float32)
    nearest = np.argsort(-(items @ items.T), axis=1)
    chosen = []
    for _ in range(NUM_USERS):
        early = random.permutation(NUM_ITEMS)[:4].tolist()
        near = [item for item in nearest[early[-1]].tolist() if item not in early]
        chosen.append([*early, *near[:2]])
    rows = np.array(chosen, np.int32)
    catalog = folder / "catalog"
    with writing_catalog(catalog, {}, {}) as writer:
        writer.add_entities("users", pa.table({"raw_id": range(NUM_USERS)}))
        writer.add_entities("items", pa.table({"raw_id": range(NUM_ITEMS)}))
        for split, places in zip(SPLITS, ([0, 1, 2, 3], [4], [5]), strict=True):
            users, times = np.meshgrid(np.arange(NUM_USERS), places, indexing="ij")
            own = rows[:, places]
            order = np.lexsort((own.ravel(), users.ravel()))
            columns = (users.ravel().astype(np.int32), own.ravel(), times.ravel())
            writer.add_interactions(split, *(column[order] for column in columns))
    training_matrix(Catalog.open(catalog)).save(folder / "training")
    trained = folder / "trained"
    trained.mkdir()
    users = 0.1 * random.standard_normal((NUM_USERS, DIM)).astype(np.float32)
    np.save(trained / "user_vectors.npy", users)
    np.save(trained / "item_vectors.npy", items)
    config = Config()
    return Task(
        stage="history",
        catalog=catalog,
        graphs=GraphPaths(folder / "training", folder, folder),
        settings=config.train.model_copy(update={"metric": "recall_at_5"}),
        evaluation=config.evaluation,
        folder=trained,
        seed=0,
        history=TRIED,
    )


def run(task: Task, num_ranks: int, folder: Path) -> Task:
    folder.mkdir()
    task = dataclasses.replace(task, users=folder)
    run_on_ranks(worker_on_cpu, num_ranks, task)
    return task


def worker_on_cpu(task: Task) -> None:
    import ray.train.torch
    import torch

    ray.train.torch.get_device = lambda: torch.device("cpu")
    worker.history_worker({"task": task})


def test_the_best_is_taken_and_evaluated(task, tmp_path):
    task = run(task, 1, tmp_path / "one")
    catalog = Catalog.open(task.catalog)
    users, items = (np.load(task.folder / f"{table}_vectors.npy") for table in ("user", "item"))
    training = training_matrix(catalog)
    figures = {}
    for share, decay in TRIED.candidates:
        means = means_of_latest(catalog, slice(0, NUM_USERS), items, decay)
        mixed = ((1 - share) * users + share * means).astype(np.float32)
        for split in ("valid", "test"):
            held_out = Split.from_catalog(catalog, split, training)
            figures[share, decay, split] = evaluate_vectors(
                held_out, mixed, items, task.evaluation
            ).metrics
    scores = {pair: figures[*pair, "valid"]["recall_at_5"] for pair in TRIED.candidates}
    assert len(scores) == 5 and len(set(scores.values())) > 3

    tried = json.loads((task.users / HISTORY).read_text())
    assert {(each["share"], each["decay"]): each["score"] for each in tried} == scores
    best = max(scores, key=scores.__getitem__)
    assert (tried[0]["share"], tried[0]["decay"]) == best
    assert scores[best] > 2 * scores[0, 1], "the latest item says most"
    means = means_of_latest(catalog, slice(0, NUM_USERS), items, best[1])
    mixed = (1 - best[0]) * users + best[0] * means
    np.testing.assert_allclose(np.load(task.users / "user_vectors.npy"), mixed, atol=1e-6)
    written = json.loads(task.evaluation_file.read_text())
    assert task.evaluation_file.parent == task.users
    for split in ("valid", "test"):
        assert written[split]["metrics"] == figures[*best, split]


def test_two_workers_take_the_same(task, tmp_path):
    one, two = (run(task, number, tmp_path / str(number)) for number in (1, 2))
    for name in ("user_vectors.npy", HISTORY, one.evaluation_file.name):
        assert (one.users / name).read_bytes() == (two.users / name).read_bytes(), name


def test_without_a_better_one_vectors_stay(task, tmp_path):
    poor = HistorySettings(shares=[0.999, 0], decays=[1])
    random = np.random.default_rng(1).permutation(NUM_ITEMS)
    shuffled = tmp_path / "trained"
    shuffled.mkdir()
    items = np.load(task.folder / "item_vectors.npy")
    valid = Catalog.open(task.catalog).interactions("valid")[1]
    # Histories say nothing of these items, the users' vectors all.
    np.save(shuffled / "item_vectors.npy", items[random])
    np.save(shuffled / "user_vectors.npy", 100 * items[random][valid])
    task = dataclasses.replace(task, folder=shuffled, history=poor)
    done = run(task, 2, tmp_path / "poor")
    assert json.loads((done.users / HISTORY).read_text())[0]["share"] == 0
    users, mixed = (np.load(folder / "user_vectors.npy") for folder in (shuffled, done.users))
    np.testing.assert_array_equal(users, mixed)
