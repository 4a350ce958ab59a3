"""A training that starts from an earlier run's vectors: who is known, who is new, and whether it
starts better."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from ranks import run_on_ranks
from test_models_ranks import task_of
from test_training_ranks import CPU

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.errors import UserError
from egra_dist.graph.csr import Csr
from egra_dist.serve.export import export_vectors
from egra_dist.train.loop import train
from egra_dist.train.setup import assemble, partition_of
from egra_dist.train.worker import _write_vectors

KEPT = 0.8


@pytest.fixture(scope="module")
def shelves(tmp_path_factory):
    settings = SynthSettings(num_items=151, num_users=203, num_interactions=2000, missing_share=0.1)
    return synthesize(settings, tmp_path_factory.mktemp("warm") / "catalog")


def start_warm(task, exported):
    """Trains, exports most of the rows, and starts anew: scores, and this rank's warm tables."""
    parts = assemble(task, CPU)
    cold = parts.validate(parts.propagation.infer())
    train(parts)
    catalog = task.open_catalog()
    _write_vectors(task.folder, partition_of(catalog), parts.propagation.infer())
    if dist.get_rank() == 0:
        export_most(catalog, task.folder, exported)
    dist.barrier()
    settings = task.settings.model_copy(update={"warm_start": exported.parent})
    warm = assemble(replace(task, settings=settings, folder=task.folder.parent / "again"), CPU)
    score = warm.validate(warm.propagation.infer())
    return {
        "cold": cold["valid/recall_at_20"],
        "warm": score["valid/recall_at_20"],
        **{
            name: torch.cat([rows for _, rows in warm.tables.own_rows(name)]).numpy()
            for name in ("user", "item")
        },
    }


def export_most(catalog, folder, exported):
    """As a run of an earlier, smaller catalogue leaves them: another order, and some not there."""
    random = np.random.default_rng(0)
    for entities in ("users", "items"):
        vectors = np.load(folder / f"{entities[:-1]}_vectors.npy")
        export_vectors(catalog, entities, vectors, exported / entities)
        table = pq.read_table(exported / entities)
        kept = random.permutation(len(table))[: int(KEPT * len(table))]
        for number, rows in enumerate(np.array_split(kept, 2)):
            pq.write_table(table.take(rows), exported / entities / f"part-{number:05}.parquet")


FUSED = (
    "train.propagation.mode=sampled",
    "train.optimizer.tables=rowwise_adagrad",
    "train.optimizer.learning_rate=0.01",
    "train.tables.lookup=torchrec",
    "train.tables.sharding=[column_wise]",
    "train.tables.column_width=8",
)


@pytest.fixture(scope="module", params=[(), FUSED], ids=["direct", "torchrec"])
def started(request, shelves, tmp_path_factory):
    folder = tmp_path_factory.mktemp("started")
    options = ("train.max_epochs=20", "train.patience=20", *request.param)
    task = task_of("egra", shelves, folder, *options)
    exported = folder / "run" / "export"
    results = run_on_ranks(start_warm, 2, task, exported)
    tables = {n: np.concatenate([r[n] for r in results]) for n in ("user", "item")}
    return task, exported, results[0], tables


def known_vectors(catalog, exported, entities):
    """By dense index; rows of NaN for those who are not there."""
    table = pq.read_table(exported / entities).to_pydict()
    vectors = dict(zip(table["raw_id"], table["vector"], strict=True))
    nobody = [np.nan] * len(table["vector"][0])
    return np.array([vectors.get(i, nobody) for i in catalog.raw_ids(entities).to_pylist()])


def dense(folder):
    graph = Csr.load(folder)
    matrix = np.zeros((graph.num_rows, graph.num_columns))
    rows = np.repeat(np.arange(graph.num_rows), np.diff(graph.indptr))
    matrix[rows, graph.indices] = graph.values
    return matrix


def mean_of_known(weights, vectors):
    known = ~np.isnan(vectors[:, 0])
    total = weights[:, known].sum(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return weights[:, known] @ vectors[known] / total


def test_known_ids_keep_their_vectors_and_new_ones_take_their_neighbours_mean(shelves, started):
    task, exported, _, tables = started
    users, items = (known_vectors(shelves, exported, e) for e in ("users", "items"))
    assert 0.15 < np.isnan(items[:, 0]).mean() < 0.25
    features = sum(dense(folder) for folder in task.graphs.features.values())
    around = mean_of_known(dense(task.graphs.behavior), np.concatenate([users, items]))
    wanted_items = np.where(np.isnan(items), mean_of_known(features, items), items)
    wanted_items = np.where(np.isnan(wanted_items), around[len(users) :], wanted_items)
    wanted_users = np.where(np.isnan(users), around[: len(users)], users)
    for name, wanted in (("user", wanted_users), ("item", wanted_items)):
        assert np.isfinite(wanted).all(), "everybody has a neighbour who is known"
        np.testing.assert_allclose(tables[name], wanted, rtol=1e-4, atol=1e-6)


def test_it_starts_better(started):
    scores = started[2]
    assert scores["warm"] > 1.5 * scores["cold"]
    assert scores["warm"] > 0.1


def test_new_items_are_nearer_to_what_they_were_than_random_rows_are(shelves, started):
    task, exported, _, tables = started
    earlier = np.load(task.folder / "item_vectors.npy")
    is_new = np.isnan(known_vectors(shelves, exported, "items")[:, 0])
    assert _cosine(tables["item"], earlier)[is_new].mean() > 0.3


def _cosine(left, right):
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def test_vectors_of_another_width_are_refused(shelves, started, tmp_path):
    _, exported, _, _ = started
    task = task_of("egra", shelves, tmp_path, "train.model.dim=8")
    settings = task.settings.model_copy(update={"warm_start": exported})
    with pytest.raises(Exception, match=r"vectors have 16 columns, the tables have 8") as found:
        run_on_ranks(assemble, 1, replace(task, settings=settings), CPU)
    assert UserError.__name__ in str(found.value)
