import pytest
import torch
from torch.nn import functional

from egra_dist.model.losses import bpr, info_nce, sampled_softmax


def reference_info_nce(anchors, candidates, positives, temperature):
    """METHOD's formula, in float64."""
    cosines = functional.cosine_similarity(
        anchors.double()[:, None], candidates.double()[None], dim=2
    )
    return functional.cross_entropy(cosines / temperature, positives, reduction="none")


@pytest.mark.parametrize("temperature", [0.02, 0.2, 1.0])
def test_info_nce_and_its_gradients_match_float64(temperature):
    torch.manual_seed(0)
    anchors, candidates = torch.randn(6, 8), torch.randn(9, 8)
    positives, weights = torch.tensor([0, 3, 3, 8, 1, 2]), torch.rand(6)
    results = []
    for function in (info_nce, reference_info_nce):
        inputs = [tensor.clone().requires_grad_() for tensor in (anchors, candidates)]
        losses = function(*inputs, positives, temperature)
        (losses * weights).sum().backward()
        results.append((losses.detach().float(), *(tensor.grad for tensor in inputs)))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=2e-4, atol=2e-5)


def test_info_nce_with_counts_is_that_of_repeated_candidates():
    torch.manual_seed(3)
    anchors, distinct = torch.randn(5, 8), torch.randn(4, 8)
    counts, positives = torch.tensor([1, 3, 2, 1]), torch.tensor([0, 1, 1, 3, 2])
    gradients = []
    for repeats in (None, counts):
        candidates = distinct.clone().requires_grad_()
        if repeats is None:
            losses = info_nce(anchors, candidates, positives, 0.2, log_counts=counts.log())
        else:
            first = counts.cumsum(0) - counts
            rows = candidates.repeat_interleave(counts, 0)
            losses = info_nce(anchors, rows, first[positives], 0.2)
        losses.sum().backward()
        gradients.append((losses.detach(), candidates.grad))
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected)


def test_info_nce_gradient_is_the_numerical_one():
    torch.manual_seed(1)
    anchors = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    candidates = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    positives = torch.tensor([4, 0, 0])
    assert torch.autograd.gradcheck(
        lambda a, c: info_nce(a, c, positives, 0.2), (anchors, candidates)
    )


def test_bpr_is_minus_log_sigmoid_of_the_difference():
    positive, negative = torch.tensor([2.0, -100.0]), torch.tensor([1.0, 100.0])
    expected = -functional.logsigmoid((positive - negative).double()).float()
    torch.testing.assert_close(bpr(positive, negative), expected)


def reference_softmax(users, candidates, positives, log_shares, temperature):
    """Cross entropy of the corrected logits, in float64."""
    logits = users.double() @ candidates.double().T / temperature - log_shares.double()
    return functional.cross_entropy(logits, positives, reduction="none")


@pytest.mark.parametrize("temperature", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_sampled_softmax_and_its_gradients_match_float64(temperature, scale):
    torch.manual_seed(0)
    users, candidates = scale * torch.randn(6, 8), torch.randn(9, 8)
    positives, weights = torch.tensor([0, 3, 3, 8, 1, 2]), torch.rand(6)
    log_shares = -5 * torch.rand(9)
    results = []
    for function in (sampled_softmax, reference_softmax):
        inputs = [tensor.clone().requires_grad_() for tensor in (users, candidates)]
        losses = function(*inputs, positives, log_shares, temperature)
        (losses * weights).sum().backward()
        results.append((losses.detach().float(), *(tensor.grad for tensor in inputs)))
    assert torch.isfinite(results[0][0]).all()
    # Logits of thousands are themselves known to a thousandth only.
    rtol = 2e-4 + 2e-7 * scale**2 / temperature
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=rtol, atol=rtol * scale / temperature)


def test_sampled_softmax_gradient_is_the_numerical_one():
    torch.manual_seed(1)
    users = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    candidates = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    log_shares = -torch.rand(5, dtype=torch.float64)
    positives = torch.tensor([4, 0, 0])
    assert torch.autograd.gradcheck(
        lambda u, c: sampled_softmax(u, c, positives, log_shares, 0.2), (users, candidates)
    )


def test_the_same_correction_for_all_candidates_changes_nothing():
    torch.manual_seed(2)
    users, candidates, positives = torch.randn(4, 3), torch.randn(6, 3), torch.tensor([0, 5, 2, 2])
    plain, shifted = (
        sampled_softmax(users, candidates, positives, torch.full((6,), log_share), 0.5)
        for log_share in (0.0, -7.0)
    )
    torch.testing.assert_close(plain, shifted, rtol=1e-4, atol=1e-5)


def test_sampled_softmax_of_a_rank_without_triplets():
    losses = sampled_softmax(
        torch.empty(0, 3), torch.randn(6, 3), torch.empty(0, dtype=torch.int64), torch.zeros(6), 0.2
    )
    assert losses.shape == (0,)
