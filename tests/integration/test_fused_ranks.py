"""Tables that TorchRec looks up, however they are sharded: the same training as on direct tables.

Ranks take seconds to start: each group of them does everything that is asked of it.
"""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from ranks import run_on_ranks
from test_models_ranks import ALIGNED, joined, task_of
from test_sampled_ranks import FEW, SAMPLED, STOPPED_AFTER, train_until_stopped
from test_training_ranks import CPU, ListRecorder, series, train_on_rank, with_folder

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.model.row_gradients import RowGradients
from egra_dist.train import optimizers
from egra_dist.train.loop import _sum_gradients, train
from egra_dist.train.pipelining import distributed_ahead, register_batches
from egra_dist.train.setup import assemble
from egra_dist.train.task import Survival

WAYS = ("row_wise", "table_wise", "column_wise")
BLOCK = 8
"""Half of the columns."""
NUM_EPOCHS, NUM_STEPS = 3, 6
NUM_PIPELINED = 2 * NUM_STEPS


class AdagradOfBlocks(optimizers.RowWiseAdagrad):
    """An accumulator for each row and block of columns, as a kernel has that holds such a block."""

    def _new_state(self, table):
        starts = range(0, table.shape[1], BLOCK)
        return {f"sum-{first}": torch.zeros(len(table)) for first in starts}

    def _update_rows(self, table, gradients, state, rate):
        for first in range(0, table.shape[1], BLOCK):
            columns = slice(first, first + BLOCK)
            parts = [RowGradients(group.rows, group.values[:, columns]) for group in gradients]
            own = {"sum": state[f"sum-{first}"]}
            super()._update_rows(table[:, columns], parts, own, rate)


def train_in_blocks(task):
    with patch.object(optimizers, "RowWiseAdagrad", AdagradOfBlocks):
        return train_on_rank(task)


def pipelined_by_torchrec(task):
    """Losses when TorchRec's own pipeline runs the steps of an epoch, and then those of another."""
    from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

    parts = assemble(task, CPU)
    register_batches()
    losses = []

    def forward(batch):
        found = parts.model.losses(parts.propagation.rows(batch), batch.shares, len(losses))
        losses.append(found.total.item())
        return found.total, found

    class Update:
        def zero_grad(self):
            pass

        def step(self):
            _sum_gradients(parts.optimizers.dense_parameters)
            parts.optimizers.step()

    for epoch in range(2):
        parts.optimizers.set_epoch(epoch)
        pipeline = TrainPipelineSparseDist(
            parts.tables.module, Update(), CPU, custom_model_fwd=forward
        )
        batches = parts.propagation.epoch(epoch)
        for _ in range(NUM_STEPS):
            pipeline.progress(batches)
        with pytest.raises(StopIteration):
            pipeline.progress(batches)
        pipeline.detach()
    return losses


def trained_ahead(task):
    """As the loop trains on a GPU."""
    recorder = ListRecorder()
    parts = assemble(task, CPU, recorder)
    parts.propagation._ahead = lambda batches: distributed_ahead(batches, parts.tables, CPU)
    train(parts)
    return recorder.points


def work_on_rank(direct, fused, stopped, pipelined):
    return {
        "direct": [train_on_rank(direct[0]), train_in_blocks(direct[1])] if direct else [],
        "fused": [train_on_rank(task) for task in fused],
        "stopped": [train_until_stopped(task) for task in stopped],
        "pipelined": pipelined_by_torchrec(pipelined[0]) if pipelined else [],
        "ahead": trained_ahead(pipelined[1]) if pipelined else [],
    }


@pytest.fixture(scope="module")
def shelves(tmp_path_factory):
    settings = SynthSettings(num_items=151, num_users=203, num_interactions=2000, missing_share=0.1)
    return synthesize(settings, tmp_path_factory.mktemp("fused") / "catalog")


def fused_task(shelves, folder, *overrides):
    """The last batch of an epoch is one triplet: the second of two ranks has none of it."""
    return task_of(
        "egra",
        shelves,
        folder,
        SAMPLED,
        *FEW,
        f"train.batch_size={(shelves.num_interactions('train') - 1) // 5}",
        "train.optimizer.tables=rowwise_adagrad",
        "train.optimizer.learning_rate=0.01",
        "train.optimizer.decay=0.3",
        "train.optimizer.decay_epochs=1",
        f"train.max_epochs={NUM_EPOCHS}",
        "train.evaluate_every=1",
        *overrides,
    )


@pytest.fixture(scope="module")
def runs(shelves, tmp_path_factory):
    """By number of ranks, trainings in every way; on two they are also begun, and ended on one."""
    folder = tmp_path_factory.mktemp("ranks")
    direct = fused_task(shelves, folder)
    ways = [
        fused_task(
            shelves,
            folder,
            "train.tables.lookup=torchrec",
            f"train.tables.sharding=[{way}]",
            f"train.tables.column_width={BLOCK}",
        )
        for way in WAYS
    ]

    def places(name, tasks, **more):
        return [
            replace(with_folder(task, folder / f"{name}-{number}"), **more)
            for number, task in enumerate(tasks)
        ]

    begun, again = (
        places(name, ways, survival=Survival(checkpoint_steps=4)) for name in ("begun", "again")
    )
    two = run_on_ranks(work_on_rank, 2, [], places("two", ways), [*begun, *again], [])
    two_again = run_on_ranks(
        work_on_rank, 2, [], again, [], places("pipelined", [ways[2], ways[0]])
    )
    one = run_on_ranks(
        work_on_rank, 1, places("direct", [direct] * 2), [*places("one", ways), *begun], [], []
    )
    return {"one": one, "two": two, "two again": two_again}


def fused_runs(results, number):
    return [result["fused"][number] for result in results]


@pytest.mark.parametrize("number", range(3), ids=WAYS)
@pytest.mark.parametrize("ranks", ["one", "two"])
def test_training_is_that_of_direct_tables(shelves, runs, ranks, number):
    points, vectors = runs["one"][0]["direct"][1 if WAYS[number] == "column_wise" else 0]
    trained = fused_runs(runs[ranks], number)
    for part in ALIGNED:
        losses = series(trained[0][0], f"train/loss_{part}")
        expected = series(points, f"train/loss_{part}")
        assert len(expected) == NUM_EPOCHS * NUM_STEPS
        np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-6)
    score = "valid/recall_at_20"
    np.testing.assert_allclose(series(trained[0][0], score), series(points, score), atol=0.002)
    np.testing.assert_allclose(joined(trained, shelves), vectors, atol=1e-4 * np.abs(vectors).max())


def test_blocks_of_columns_learn_otherwise_than_whole_rows(runs):
    whole, blocks = (vectors for _, vectors in runs["one"][0]["direct"])
    assert np.abs(whole - blocks).max() > 1e-2 * np.abs(whole).max()


@pytest.mark.parametrize("number", range(3), ids=WAYS)
def test_interrupted_training_goes_on_as_if_it_had_not_been(runs, number):
    for rank in range(2):
        assert len(runs["two"][0]["stopped"][number]) < NUM_EPOCHS * NUM_STEPS
        _, wanted = runs["two"][rank]["fused"][number]
        _, vectors = runs["two again"][rank]["fused"][number]
        np.testing.assert_array_equal(vectors, wanted)


@pytest.mark.parametrize("number", range(3), ids=WAYS)
def test_interrupted_training_goes_on_with_another_number_of_workers(runs, number):
    points, wanted = runs["one"][0]["fused"][number]
    rest, vectors = runs["one"][0]["fused"][len(WAYS) + number]
    first = runs["two"][0]["stopped"][number]
    assert [step for step, point in first if "train/loss_total" in point][-1] < STOPPED_AFTER
    losses = series(points, "train/loss_total")[8:]
    np.testing.assert_allclose(series(rest, "train/loss_total"), losses, rtol=1e-4)
    np.testing.assert_allclose(vectors, wanted, atol=1e-4 * np.abs(wanted).max())


def test_torchrecs_pipeline_and_the_loop_that_sends_ids_ahead_train_the_same(runs):
    of_columns, of_rows = (runs["two"][0]["fused"][number][0] for number in (2, 0))
    by_torchrec = np.sum([result["pipelined"] for result in runs["two again"]], axis=0)
    expected = series(of_columns, "train/loss_total")[:NUM_PIPELINED]
    np.testing.assert_allclose(by_torchrec, expected, rtol=1e-5)
    ahead = series(runs["two again"][0]["ahead"], "train/loss_total")
    np.testing.assert_array_equal(ahead, series(of_rows, "train/loss_total"))


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_three_workers_learn_the_same_as_one(shelves, tmp_path, way):
    task = fused_task(
        shelves,
        tmp_path,
        "train.tables.lookup=torchrec",
        f"train.tables.sharding=[{way}]",
        f"train.tables.column_width={BLOCK}",
    )
    one, three = (
        run_on_ranks(train_on_rank, num_ranks, with_folder(task, tmp_path / str(num_ranks)))
        for num_ranks in (1, 3)
    )
    losses = [series(results[0][0], "train/loss_total") for results in (one, three)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    wanted = joined(one, shelves)
    np.testing.assert_allclose(joined(three, shelves), wanted, atol=1e-4 * np.abs(wanted).max())
