"""Sampled training: the same on one worker and on two, and exact where the fan-out suffices.

Ranks take seconds to start: each group of them does everything that is asked of it.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ranks import dense_gradient, run_on_ranks
from test_models_ranks import ALIGNED, joined, task_of
from test_training_ranks import CPU, ListRecorder, series, train_on_rank, with_folder

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.train.loop import _sum_gradients, train
from egra_dist.train.setup import assemble
from egra_dist.train.task import Survival

STOPPED_AFTER = 9
SAMPLED = "train.propagation.mode=sampled"
FEW = [
    "train.propagation.user_item=[3,2]",
    "train.propagation.item_item=[2]",
    "train.propagation.modality_items=2",
    "train.propagation.feature_neighbors=2",
]
ALL = [
    "train.propagation.user_item=[1000]",
    "train.propagation.item_item=[1000]",
    "train.propagation.modality_items=1000",
    "train.propagation.feature_neighbors=1000",
]


@pytest.fixture(scope="module")
def shelves(tmp_path_factory):
    """Some items lack a modality."""
    settings = SynthSettings(num_items=151, num_users=203, num_interactions=2000, missing_share=0.1)
    return synthesize(settings, tmp_path_factory.mktemp("sampled") / "catalog")


def sampled_tasks(shelves, folder, *overrides):
    """The last batch of an epoch is one triplet: the second of two ranks has none of it."""
    size = f"train.batch_size={(shelves.num_interactions('train') - 1) // 5}"
    return [
        task_of(name, shelves, folder, SAMPLED, *FEW, size, *options, *overrides)
        for name, *options in (
            ("egra", "train.optimizer.tables=rowwise_adagrad"),
            ("egra", "train.ranking.loss=softmax", "train.ranking.negative_power=0.5"),
            ("lightgcn",),
        )
    ]


def one_step(exact, sampled):
    """Losses, gradients and vectors of either mode, for the same batch on the same tables."""
    exact, sampled = assemble(exact, CPU), assemble(sampled, CPU)
    batch = next(exact.propagation.epoch(0))
    drawn = sampled.propagation._surround(batch.shares, 0, 0)
    return [figures(exact, batch), figures(sampled, drawn)]


def figures(parts, batch):
    vectors = parts.propagation.infer(with_shares=True)
    losses = parts.model.losses(parts.propagation.rows(batch), batch.shares, step=10)
    losses.total.backward()
    _sum_gradients(parts.optimizers.dense_parameters)
    gradients = [parameter.grad.flatten() for parameter in parts.optimizers.dense_parameters]
    return {
        "losses": torch.stack(list(losses.values.values())).detach().numpy(),
        "dense": torch.cat(gradients).numpy(),
        "user": gradient_of(parts.tables.local("user")),
        "item": gradient_of(parts.tables.local("item")),
        "vectors": torch.cat([vectors.users, vectors.items]).numpy(),
        "degrees": torch.cat(vectors.degrees).numpy(),
        "shares": torch.stack(list(vectors.item_shares.values())).numpy(),
    }


def gradient_of(table):
    """Of exact propagation a dense one."""
    return dense_gradient(table) if table.grad is None else table.grad.numpy()


class StoppedError(Exception):
    pass


class StoppingRecorder(ListRecorder):
    """Stops the training, on every rank, when a step is done."""

    def log(self, step, metrics):
        if step == STOPPED_AFTER and "train/loss_total" in metrics:
            raise StoppedError
        super().log(step, metrics)


def train_until_stopped(task):
    recorder = StoppingRecorder()
    parts = assemble(task, CPU, recorder)
    with pytest.raises(StoppedError):
        train(parts)
    parts.checkpoints.wait()
    return recorder.points


def work_on_rank(pair, tasks, interrupted=None):
    first = train_until_stopped(interrupted) if interrupted else None
    return one_step(*pair), [train_on_rank(task) for task in tasks], first


@pytest.fixture(scope="module")
def runs(shelves, tmp_path_factory):
    """Trainings on two ranks, and on one; the last on one was begun on two."""
    folder = tmp_path_factory.mktemp("ranks")
    tasks = sampled_tasks(shelves, folder, "train.max_epochs=4", "train.evaluate_every=1")
    pair = [task_of("egra", shelves, folder, *options) for options in ([], [SAMPLED, *ALL])]
    shared = replace(tasks[0], folder=folder / "interrupted", survival=Survival(checkpoint_steps=4))

    def places(num_ranks, tasks):
        return [with_folder(task, folder / f"{n}-on-{num_ranks}") for n, task in enumerate(tasks)]

    two = run_on_ranks(work_on_rank, 2, places("two", pair), places(2, tasks), shared)
    one = run_on_ranks(work_on_rank, 1, places("one", pair), [*places(1, tasks), shared])
    return one, two


@pytest.mark.parametrize("number", range(3))
def test_sampled_models_learn_the_same_on_two_workers(shelves, runs, number):
    one, two = ([trained[number] for _, trained, _ in results] for results in runs)
    for part in ("ranking", "regularization") if number == 2 else ALIGNED:
        expected = series(one[0][0], f"train/loss_{part}")
        assert len(expected) == 4 * 6
        losses = series(two[0][0], f"train/loss_{part}")
        np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-6)
    wanted = joined(one, shelves)
    np.testing.assert_allclose(joined(two, shelves), wanted, atol=1e-4 * np.abs(wanted).max())


def test_interrupted_sampled_training_goes_on_with_other_workers(runs):
    one, two = runs
    _, trained, _ = one[0]
    (points, wanted), (rest, vectors) = trained[0], trained[3]
    # Checkpoints came after 4 steps, after the first epoch of 6, and after 8.
    first = [(step, point) for step, point in two[0][2] if step < 8]
    losses = np.concatenate([series(part, "train/loss_total") for part in (first, rest)])
    np.testing.assert_allclose(losses, series(points, "train/loss_total"), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(vectors, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_sample_of_all_neighbors_is_the_whole_graph(runs, num_ranks):
    for (exact, sampled), _, _ in runs[num_ranks - 1]:
        for name in ("losses", "dense", "user", "item"):
            assert np.abs(exact[name]).max() > 0
            np.testing.assert_allclose(sampled[name], exact[name], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_inference_layer_by_layer_is_exact(runs, num_ranks):
    for (exact, sampled), _, _ in runs[num_ranks - 1]:
        for name in ("vectors", "degrees", "shares"):
            assert np.abs(exact[name]).max() > 0
            np.testing.assert_allclose(sampled[name], exact[name], rtol=1e-4, atol=1e-6)


def test_small_tables_learn_as_wide_ones_and_go_on_as_they_were(shelves, tmp_path):
    """An interrupted training rounds as one that was not."""
    options = ("train.optimizer.tables=rowwise_adagrad", "train.max_epochs=4")
    wide, small = (
        task_of("egra", shelves, tmp_path, SAMPLED, *FEW, *options, *more)
        for more in ([], ["train.optimizer.table_type=bfloat16"])
    )
    wide, small = (replace(t, survival=Survival(checkpoint_steps=4)) for t in (wide, small))
    tasks = [with_folder(task, tmp_path / str(n)) for n, task in enumerate((wide, small, small))]
    ((trained, stopped),) = run_on_ranks(train_and_go_on, 1, tasks)
    wide_run, small_run, rest = trained
    losses = [series(points, "train/loss_total") for points, _ in (wide_run, small_run)]
    assert not np.array_equal(*losses)
    np.testing.assert_allclose(*losses, rtol=0.02)
    assert 0 < len(stopped) < len(small_run[0])
    np.testing.assert_array_equal(rest[1], small_run[1])


def train_and_go_on(tasks):
    stopped = train_until_stopped(tasks[-1])
    return [train_on_rank(task) for task in tasks], stopped
