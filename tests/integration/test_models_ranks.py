"""Every named model learns the same on one worker and on two, by either ranking loss.

Ranks take seconds to start: each group of them trains all models, one after the other.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from ranks import run_on_ranks
from test_training_ranks import make_task, series, train_on_rank, train_until_epoch, with_folder

from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.graph.partition import RowPartition
from egra_dist.train.task import Task

MODELS = ("lightgcn", "vbpr", "bm3", "freedom", "mgcn", "gume", "egra")
LOSSES = {
    "bm3": ("ranking", "regularization", "modality"),
    "freedom": ("ranking", "regularization", "modality"),
    "lightgcn": ("ranking", "regularization"),
    "vbpr": ("ranking", "regularization"),
}
ALIGNED = ("ranking", "regularization", "user_alignment", "item_alignment")


@pytest.fixture(scope="module")
def shelves(tmp_path_factory) -> Catalog:
    """Some items lack a modality."""
    settings = SynthSettings(num_items=151, num_users=203, num_interactions=2000, missing_share=0.1)
    return synthesize(settings, tmp_path_factory.mktemp("shelves") / "catalog")


def task_of(name: str, catalog: Catalog, folder: Path, *overrides: str) -> Task:
    """A training of a model on the graph and the modalities that it uses."""
    task = make_task(
        catalog,
        folder,
        f"train.model.name={name}",
        "train.model.dim=16",
        "train.batch_size=256",
        "train.alignment.lambda_max=0.1",
        "train.alignment.ramp_steps=5",
        "train.model.modality_dropout=0.2",
        "train.patience=99",
        "train.evaluate_every=2",
        *overrides,
    )
    model, graphs = task.settings.model, task.graphs
    return replace(
        task,
        graphs=replace(
            graphs,
            behavior=graphs.behavior if model.uses_item_graph else graphs.plain,
            features=graphs.features if model.uses_modalities else {},
        ),
    )


def joined(results: list, catalog: Catalog) -> np.ndarray:
    """The final vectors of all users, then of all items."""
    users = RowPartition.even(catalog.num_users, len(results))
    parts = [np.split(final, [users.size(rank)]) for rank, (_, final) in enumerate(results)]
    return np.concatenate([part[entities] for entities in range(2) for part in parts])


def train_all(tasks: list[Task]) -> list:
    return [train_on_rank(task) for task in tasks]


def train_parts(tasks: list[Task], parts: list[Task]) -> list:
    return [train_until_epoch(task, part.settings) for task, part in zip(tasks, parts, strict=True)]


def runs(num_ranks: int, tasks: list[Task], folder: Path) -> list[list]:
    """By task what each rank returned."""
    own = [with_folder(task, folder / f"{n}-on-{num_ranks}") for n, task in enumerate(tasks)]
    return list(zip(*run_on_ranks(train_all, num_ranks, own), strict=True))


COMBINATIONS = list(product(MODELS, ("bpr", "softmax")))


@pytest.fixture(scope="module")
def trained(shelves, tmp_path_factory) -> dict:
    """By model and loss the runs on one rank and on two.

    Two epochs, so that FREEDOM draws its edges twice; 100 of a batch's 256 negatives count.
    """
    folder = tmp_path_factory.mktemp("trained")
    tasks = [
        task_of(
            name,
            shelves,
            folder,
            "train.max_epochs=2",
            f"train.ranking.loss={loss}",
            "train.ranking.num_negatives=100",
        )
        for name, loss in COMBINATIONS
    ]
    one, two = (runs(num_ranks, tasks, folder) for num_ranks in (1, 2))
    return dict(zip(COMBINATIONS, zip(one, two, strict=True), strict=True))


@pytest.mark.parametrize(("name", "loss"), COMBINATIONS)
def test_models_learn_the_same_on_two_workers(shelves, trained, name, loss):
    one, two = trained[name, loss]
    for part in LOSSES.get(name, ALIGNED):
        expected = series(one[0][0], f"train/loss_{part}")
        assert len(expected) >= 8
        assert expected.std() > 0
        np.testing.assert_allclose(series(two[0][0], f"train/loss_{part}"), expected, rtol=1e-4)
    wanted = joined(one, shelves)
    np.testing.assert_allclose(joined(two, shelves), wanted, atol=1e-4 * np.abs(wanted).max())


INTERRUPTED = [("vbpr", "adam"), ("vbpr", "rowwise_adagrad"), ("freedom", "adam")]


@pytest.fixture(scope="module")
def interrupted(shelves, tmp_path_factory) -> dict:
    """Four epochs on one rank; or two on two ranks, and then the rest on one."""
    folder = tmp_path_factory.mktemp("interrupted")
    whole, part = (
        [
            task_of(
                name,
                shelves,
                folder,
                f"train.optimizer.tables={tables}",
                f"train.max_epochs={num_epochs}",
            )
            for name, tables in INTERRUPTED
        ]
        for num_epochs in (4, 2)
    )
    uninterrupted = [run[0] for run in runs(1, whole, folder)]
    shared = [with_folder(task, folder / f"shared{n}") for n, task in enumerate(whole)]
    first = run_on_ranks(train_parts, 2, shared, part)[0]
    (rest,) = run_on_ranks(train_all, 1, shared)
    return dict(zip(INTERRUPTED, zip(uninterrupted, first, rest, strict=True), strict=True))


@pytest.mark.parametrize(("name", "tables"), INTERRUPTED)
def test_interrupted_training_goes_on_as_if_it_had_not_been(interrupted, name, tables):
    """VBPR's user table is wider than its item table, FREEDOM's edges depend on the epoch."""
    (points, wanted), first, (rest, vectors) = interrupted[name, tables]
    losses = np.concatenate([series(part, "train/loss_total") for part in (first, rest)])
    expected = series(points, "train/loss_total")
    assert len(losses) == len(expected)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    np.testing.assert_allclose(vectors, wanted, atol=1e-3 * np.abs(wanted).max())


def test_last_batch_may_have_fewer_triplets_than_there_are_workers(shelves, tmp_path):
    """The last batch of the epoch is one triplet: the second rank has none of it."""
    task = task_of(
        "egra",
        shelves,
        tmp_path,
        "train.max_epochs=2",
        "train.ranking.loss=softmax",
        f"train.batch_size={shelves.num_interactions('train') - 1}",
    )
    one, two = (runs(num_ranks, [task], tmp_path)[0] for num_ranks in (1, 2))
    for part in ALIGNED:
        expected = series(one[0][0], f"train/loss_{part}")
        assert len(expected) == 4
        actual = series(two[0][0], f"train/loss_{part}")
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
