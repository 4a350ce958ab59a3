import pytest
import torch
from torch.nn import functional

from egra_dist.model.losses import bpr, info_nce


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
