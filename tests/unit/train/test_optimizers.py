import pytest
import torch
from torch import nn

from egra_dist.config import OptimizerSettings
from egra_dist.train.optimizers import (
    LazyAdam,
    Optimizers,
    RowWiseAdagrad,
    rounded_at_random,
)


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


def test_random_rounding_gives_the_values_in_the_mean():
    values = torch.tensor([[0.3, -1.7, 1e-6, 0.0, 0.5, torch.inf]])
    noise = torch.arange(4096, dtype=torch.int32)
    drawn = rounded_at_random(values.expand(len(noise), -1), noise).float()
    assert torch.equal(drawn[:, 3:], values[:, 3:].expand(len(noise), -1)), "what needs no rounding"
    found, wanted = drawn[:, :3].mean(0), values[0, :3]
    torch.testing.assert_close(found, wanted, rtol=2e-4, atol=0)
    assert all(len(column.unique()) == 2 for column in drawn[:, :3].T)


def test_updates_too_small_for_a_type_add_up():
    """Each is a hundredth of the step from 1 to the next number that bfloat16 has."""
    torch.manual_seed(0)
    small, wide = (nn.Parameter(torch.ones(64, 8, dtype=d)) for d in (torch.bfloat16, torch.float))
    optimizers = [RowWiseAdagrad([rows], lr=1e-3) for rows in (small, wide)]
    for _ in range(400):
        values = 1 + 0.1 * torch.randn(64, 8)
        for rows in (small, wide):
            every = torch.arange(64)[None]
            rows.grad = torch.sparse_coo_tensor(
                every, values.to(rows.dtype), rows.shape, check_invariants=True
            )
        for optimizer in optimizers:
            optimizer.step()
    moved = 1 - wide.mean()
    assert moved > 0.03
    assert abs(1 - small.float().mean() - moved) < 0.05 * moved
