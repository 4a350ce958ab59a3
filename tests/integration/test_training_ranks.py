"""1, 2 and 4 workers learn the same: losses, gradients, metrics, checkpoints."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ranks import run_on_ranks

from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.mmrec import ingest_mmrec
from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.config import TrainingSettings, load_config
from egra_dist.graph.item import write_graphs, write_merged
from egra_dist.graph.knn import KnnSettings, build_knn
from egra_dist.train.loop import train
from egra_dist.train.setup import assemble
from egra_dist.train.task import GraphPaths, Task

CPU = torch.device("cpu")


class ListRecorder:
    """Keeps what is recorded."""

    def __init__(self):
        self.points = []

    def log(self, step, metrics):
        self.points.append((step, dict(metrics)))

    def close(self):
        pass


def make_task(catalog: Catalog, folder: Path, *overrides: str) -> Task:
    """An EGRA training whose item graph comes from the first modality's features."""
    graphs = folder / "graphs"
    config = load_config(None, overrides)
    if not graphs.exists():
        write_graphs(catalog, catalog.modalities, 10, graphs)
        features = catalog.features(catalog.modalities[0])
        knn = build_knn(features.values, KnnSettings(k=5), features.present)
        knn.save(folder / "knn")
        write_merged(graphs, folder / "knn", config.item_graph, folder / "merged")
    return Task(
        stage="train",
        catalog=catalog.path,
        graphs=GraphPaths.of(graphs, catalog.modalities, folder / "merged"),
        settings=config.train,
        evaluation=config.evaluation,
        folder=folder / "training",
        seed=3,
        log_every_steps=1,
    )


def train_on_rank(task: Task) -> tuple[list, torch.Tensor]:
    recorder = ListRecorder()
    parts = assemble(task, CPU, recorder if dist.get_rank() == 0 else None)
    train(parts)
    vectors = parts.propagation.infer()
    return recorder.points, torch.cat([vectors.users, vectors.items]).numpy()


def series(points, name):
    return np.array([metrics[name] for _, metrics in points if name in metrics])


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> Catalog:
    folder = tmp_path_factory.mktemp("synthetic") / "catalog"
    return synthesize(SynthSettings(num_items=301, num_users=403, num_interactions=4000), folder)


def with_folder(task: Task, folder: Path) -> Task:
    return Task(**{**task.__dict__, "folder": folder})


@pytest.mark.parametrize("unique_ids", [False, True])
def test_losses_and_metrics_do_not_depend_on_the_number_of_workers(synthetic, tmp_path, unique_ids):
    task = make_task(
        synthetic,
        tmp_path,
        "train.max_steps=50",
        "train.batch_size=256",
        "train.optimizer.learning_rate=0.01",
        "train.alignment.lambda_max=0.1",
        "train.alignment.ramp_steps=20",
        f"train.alignment.unique_ids={unique_ids}",
    )
    runs = {
        num_ranks: run_on_ranks(
            train_on_rank, num_ranks, with_folder(task, tmp_path / str(num_ranks))
        )
        for num_ranks in ((1, 4) if unique_ids else (1, 2, 4))
    }
    expected = runs[1][0][0]
    for results in runs.values():
        points = results[0][0]
        for name in ("ranking", "regularization", "user_alignment", "item_alignment", "total"):
            losses = series(points, f"train/loss_{name}")
            assert len(losses) == 50
            np.testing.assert_allclose(losses, series(expected, f"train/loss_{name}"), rtol=1e-4)
        final, wanted = (series(p, "valid/recall_at_20")[-1] for p in (points, expected))
        assert final == pytest.approx(wanted, abs=0.002)


def test_tiktok_losses_do_not_depend_on_the_number_of_workers(data_folder, tmp_path):
    catalog = ingest_mmrec(data_folder / "tiktok", tmp_path / "catalog", 0)
    task = make_task(catalog, tmp_path, "train.max_steps=50")
    one, two = (
        run_on_ranks(train_on_rank, num_ranks, with_folder(task, tmp_path / str(num_ranks)))[0][0]
        for num_ranks in (1, 2)
    )
    np.testing.assert_allclose(
        series(one, "train/loss_total"), series(two, "train/loss_total"), rtol=1e-4
    )
    for name in ("valid/recall_at_20", "valid/ndcg_at_20"):
        assert series(one, name)[-1] == pytest.approx(series(two, name)[-1], abs=0.002)


@pytest.mark.parametrize(
    ("tables", "workers"), [("adam", (1, 2, 4, 1)), ("rowwise_adagrad", (2, 1))]
)
def test_interrupted_training_goes_on_with_other_workers(synthetic, tmp_path, tables, workers):
    """One worker all along; or after an epoch each other ones: same schedule, same losses."""
    options = ("train.batch_size=1024", f"train.optimizer.tables={tables}", "train.patience=99")
    num_epochs = len(workers)
    tasks = [
        make_task(synthetic, tmp_path, *options, f"train.max_epochs={epochs + 1}")
        for epochs in range(num_epochs)
    ]
    whole, shared = tasks[-1], tmp_path / "interrupted"
    expected = run_on_ranks(train_on_rank, 1, with_folder(whole, tmp_path / "whole"))[0][0]
    parts = [
        run_on_ranks(train_until_epoch, num_ranks, with_folder(whole, shared), task.settings)[0]
        for num_ranks, task in zip(workers, tasks, strict=True)
    ]
    for name in ("train/loss_total", "alignment/lambda"):
        joined = np.concatenate([series(part, name) for part in parts])
        np.testing.assert_allclose(joined, series(expected, name), rtol=1e-4)
    scores = np.concatenate([series(part, "valid/recall_at_20") for part in parts])
    assert len(scores) == num_epochs
    np.testing.assert_allclose(scores, series(expected, "valid/recall_at_20"), atol=0.002)


def train_until_epoch(task: Task, settings: TrainingSettings) -> list:
    """Trains with a smaller number of epochs, then leaves as if it had been interrupted."""
    recorder = ListRecorder()
    parts = assemble(Task(**{**task.__dict__, "settings": settings}), CPU, recorder)
    state = train(parts)
    parts.checkpoints.resume()
    state.is_finished = False
    parts.checkpoints.save(state, is_best=False)
    parts.checkpoints.wait()
    return recorder.points


def gradients_on_rank(task: Task) -> dict[str, np.ndarray]:
    """Gradients of one step: own rows of the tables, and the summed dense ones."""
    from egra_dist.train.loop import _sum_gradients

    parts = assemble(task, CPU)
    batch = next(iter(parts.propagation.epoch(0)))
    losses = parts.model.losses(parts.propagation.rows(batch), batch.shares, step=10)
    losses.total.backward()
    _sum_gradients(parts.optimizers.dense_parameters)
    dense = [parameter.grad for parameter in parts.optimizers.dense_parameters]
    own = {name: table.grad.numpy() for name, table in parts.tables.parameters().items()}
    return {**own, "dense": torch.cat([gradient.flatten() for gradient in dense]).numpy()}


def test_gradients_do_not_depend_on_the_number_of_workers(synthetic, tmp_path):
    task = make_task(synthetic, tmp_path, "train.alignment.lambda_max=0.5")
    (one,) = run_on_ranks(gradients_on_rank, 1, task)
    three = run_on_ranks(gradients_on_rank, 3, task)
    for name in ("user", "item"):
        joined = np.concatenate([gradients[name] for gradients in three])
        np.testing.assert_allclose(joined, one[name], rtol=1e-3, atol=1e-8)
    for gradients in three:
        np.testing.assert_allclose(gradients["dense"], one["dense"], rtol=1e-3, atol=1e-7)
