import pytest
import torch
from torch import nn

from egra_dist.config import OptimizerSettings
from egra_dist.model.row_gradients import RowGradients, TableRows
from egra_dist.train.optimizers import (
    LazyAdam,
    Optimizers,
    RowWiseAdagrad,
    noise_of,
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
    rows = TableRows(fused.split_embedding_weights()[0].detach().uniform_(-1, 1).clone())
    ours = RowWiseAdagrad([rows], lr=0.1, eps=1e-8)
    for step in range(3):
        weights = torch.randn(6, 4) * (step + 1)
        (fused(torch.arange(6), torch.arange(7)) * weights).sum().backward()
        rows.grad = weights
        ours.step()
    torch.testing.assert_close(rows.detach(), fused.split_embedding_weights()[0])


def gradients_of_rows(num_rows, dim):
    """Each step has other rows, in two groups."""
    torch.manual_seed(0)
    for step in range(4):
        rows = torch.randperm(num_rows)
        values = torch.randn(num_rows, dim) * (step + 1)
        yield [RowGradients(rows[s], values[s]) for s in (slice(0, 2), slice(2, 3 + step % 2))]


def dense(groups, num_rows, dim):
    gradient = torch.zeros(num_rows, dim)
    for group in groups:
        gradient[group.rows] = group.values
    return gradient


def test_row_wise_adagrad_of_some_rows_is_that_of_dense_gradients():
    some, every = (TableRows(torch.ones(6, 4)) for _ in range(2))
    optimizers = [RowWiseAdagrad([rows], lr=0.1) for rows in (some, every)]
    for groups in gradients_of_rows(6, 4):
        some.leave_gradients(groups)
        every.grad = dense(groups, 6, 4)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(some, every)


def test_lazy_adam_is_torchs_sparse_adam():
    ours, theirs = TableRows(torch.ones(6, 4)), nn.Parameter(torch.ones(6, 4))
    optimizers = [LazyAdam([ours], lr=0.1), torch.optim.SparseAdam([theirs], lr=0.1)]
    for groups in gradients_of_rows(6, 4):
        ours.leave_gradients(groups)
        rows, values = (torch.cat([getattr(g, of) for g in groups]) for of in ("rows", "values"))
        theirs.grad = torch.sparse_coo_tensor(rows[None], values, (6, 4), check_invariants=True)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours.detach(), theirs.detach())


@pytest.mark.parametrize("kind", ["adam", "rowwise_adagrad"])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_state_exists_up_front_and_changes_nothing(kind, is_sparse):
    def train(materialize):
        torch.manual_seed(0)
        table, weight = TableRows(torch.randn(5, 3)), nn.Parameter(torch.randn(3))
        settings = OptimizerSettings(tables=kind)
        optimizers = Optimizers({"user": table}, [weight], settings, is_sparse)
        if materialize:
            optimizers.materialize()
            assert optimizers.table_state("user") and optimizers.dense_state()
        for _ in range(3):
            rows = table.detach()[:4].requires_grad_() if is_sparse else table[:4]
            (rows @ weight).square().sum().backward()
            if is_sparse:
                table.leave_gradients([RowGradients(torch.arange(4), rows.grad)])
            optimizers.step()
        return table.detach(), weight.detach()

    for plain, materialized in zip(train(False), train(True), strict=True):
        assert torch.equal(plain, materialized)


def test_both_rates_decay_with_the_epoch():
    settings = OptimizerSettings(
        learning_rate=0.1, dense_learning_rate=0.2, decay=0.5, decay_epochs=10
    )
    table, weight = TableRows(torch.zeros(1, 1)), nn.Parameter(torch.zeros(1))
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


@pytest.mark.parametrize("first", [1.0, 1e4])
def test_updates_too_small_for_a_type_add_up(first):
    """Each is a hundredth of the step from 1 to the next number that bfloat16 has.

    Also when the squares of gradients are too small to change the sum of those before.
    """
    torch.manual_seed(0)
    small, wide = (TableRows(torch.ones(64, 8, dtype=d)) for d in (torch.bfloat16, torch.float))
    optimizers = [RowWiseAdagrad([rows], lr=1e-3 * first) for rows in (small, wide)]
    for optimizer, rows in zip(optimizers, (small, wide), strict=True):
        rows.leave_gradients([RowGradients(torch.arange(64), torch.full((64, 8), first))])
        optimizer.step()
        rows.data.fill_(1)
    for _ in range(400):
        values = 1 + 0.1 * torch.randn(64, 8)
        for rows in (small, wide):
            rows.leave_gradients([RowGradients(torch.arange(64), values)])
        for optimizer in optimizers:
            optimizer.step()
    moved = 1 - wide.mean()
    assert moved > 0.03
    assert abs(1 - small.float().mean() - moved) < 0.05 * moved


def test_rounding_does_not_depend_on_who_has_a_row_nor_on_what_came_before():
    torch.manual_seed(0)
    whole, *parts = (TableRows(torch.ones(n, 8, dtype=torch.bfloat16)) for n in (64, 24, 40))
    parts[1].first_row = 24
    everywhere, apart = RowWiseAdagrad([whole], lr=1e-3), RowWiseAdagrad(parts, lr=1e-3)
    everywhere.number = apart.number = 17
    for _ in range(3):
        values = torch.randn(64, 8)
        whole.leave_gradients([RowGradients(torch.arange(64), values)])
        for rows, own in zip(parts, values.split([24, 40]), strict=True):
            rows.leave_gradients([RowGradients(torch.arange(len(own)).flip(0), own.flip(0))])
        everywhere.step()
        apart.step()
        assert torch.equal(whole, torch.cat(parts))
    assert len(set(noise_of(torch.arange(4096), 3).tolist())) > 4000
    assert not torch.equal(noise_of(torch.arange(64), 3), noise_of(torch.arange(64), 4))
