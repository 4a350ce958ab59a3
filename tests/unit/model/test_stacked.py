import pytest
import torch

from egra_dist.model.stacked import stacked


def neighbors(num_upper, num_lower):
    """Two matrices that lie in memory as they are to be stacked."""
    both = torch.arange(3.0 * (num_upper + num_lower)).view(-1, 3)
    return both[:num_upper], both[num_upper:]


def strangers(num_upper, num_lower):
    return tuple(part.clone() for part in neighbors(num_upper, num_lower))


def turned(num_upper, num_lower):
    """They share memory, in the other order."""
    lower, upper = neighbors(num_lower, num_upper)
    return upper, lower


@pytest.mark.parametrize("sizes", [(2, 3), (0, 3), (2, 0), (0, 0)])
@pytest.mark.parametrize("lie", [neighbors, strangers, turned])
def test_one_stands_below_the_other_and_both_get_their_gradients(lie, sizes):
    upper, lower = (part.requires_grad_() for part in lie(*sizes))
    both = stacked(upper, lower)
    assert torch.equal(both, torch.cat([upper, lower]))
    weights = torch.randn(both.shape)
    (both * weights).sum().backward()
    assert torch.equal(torch.cat([upper.grad, lower.grad]), weights)


def test_nothing_is_copied_where_they_lie_so():
    upper, lower = neighbors(2, 3)
    assert stacked(upper, lower).data_ptr() == upper.data_ptr()
    upper, lower = turned(2, 3)
    assert stacked(upper, lower).data_ptr() not in (upper.data_ptr(), lower.data_ptr())


def test_matrices_of_two_widths_cannot_be_stacked():
    with pytest.raises(RuntimeError):
        stacked(torch.zeros(2, 3), torch.zeros(2, 4))
