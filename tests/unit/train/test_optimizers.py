import pytest
import torch
from torch import nn

from egra_dist.config import OptimizerSettings
from egra_dist.train.optimizers import LazyAdam, Optimizers, RowWiseAdagrad


def test_row_wise_adagrad_is_fbgemms():
    """Against the fused kernel that TorchRec would use, on rows that each batch touches."""
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    torch.manual_seed(0)
    fused = SplitTableBatchedEmbeddingBagsCodegen(
        [(6, 4, EmbeddingLocation.HOST, ComputeDevice.CPU)],
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=0.1,
        eps=1e-8,
    )
    rows = nn.Parameter(fused.split_embedding_weights()[0].detach().uniform_(-1, 1).clone())
    ours = RowWiseAdagrad([rows], lr=0.1, eps=1e-8)
    for step in range(3):
        weights = torch.randn(6, 4) * (step + 1)
        (fused(torch.arange(6), torch.arange(7)) * weights).sum().backward()
        rows.grad = weights
        ours.step()
    torch.testing.assert_close(rows.detach(), fused.split_embedding_weights()[0])


def sparse_gradients(num_rows, dim):
    """Each step has other rows, some of them twice."""
    torch.manual_seed(0)
    for step in range(4):
        rows = torch.randint(num_rows, (5,))
        values = torch.randn(5, dim) * (step + 1)
        yield torch.sparse_coo_tensor(rows[None], values, (num_rows, dim), check_invariants=True)


def test_row_wise_adagrad_of_sparse_gradients_is_that_of_dense_ones():
    sparse, dense = (nn.Parameter(torch.ones(6, 4)) for _ in range(2))
    optimizers = [RowWiseAdagrad([rows], lr=0.1) for rows in (sparse, dense)]
    for gradient in sparse_gradients(6, 4):
        sparse.grad, dense.grad = gradient, gradient.to_dense()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(sparse, dense)


def test_lazy_adam_is_torchs_sparse_adam():
    ours, theirs = (nn.Parameter(torch.ones(6, 4)) for _ in range(2))
    optimizers = [LazyAdam([ours], lr=0.1), torch.optim.SparseAdam([theirs], lr=0.1)]
    for gradient in sparse_gradients(6, 4):
        ours.grad, theirs.grad = gradient, gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["adam", "rowwise_adagrad"])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_state_exists_up_front_and_changes_nothing(kind, is_sparse):
    def train(materialize):
        torch.manual_seed(0)
        table, weight = nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(3))
        settings = OptimizerSettings(tables=kind)
        optimizers = Optimizers({"user": table}, [weight], settings, is_sparse)
        if materialize:
            optimizers.materialize()
            assert optimizers.table_state("user") and optimizers.dense_state()
        for _ in range(3):
            rows = nn.functional.embedding(torch.arange(4), table, sparse=is_sparse)
            (rows @ weight).square().sum().backward()
            optimizers.step()
        return table.detach(), weight.detach()

    for plain, materialized in zip(train(False), train(True), strict=True):
        assert torch.equal(plain, materialized)


def test_both_rates_decay_with_the_epoch():
    settings = OptimizerSettings(
        learning_rate=0.1, dense_learning_rate=0.2, decay=0.5, decay_epochs=10
    )
    table, weight = nn.Parameter(torch.zeros(1, 1)), nn.Parameter(torch.zeros(1))
    optimizers = Optimizers({"user": table}, [weight], settings)
    optimizers.set_epoch(20)
    table.grad, weight.grad = torch.ones(1, 1), torch.ones(1)
    optimizers.step()
    # Adam's first step has the length of its learning rate.
    assert table.item() == pytest.approx(-0.1 / 4, rel=1e-4)
    assert weight.item() == pytest.approx(-0.2 / 4, rel=1e-4)
