import itertools

import pytest
import torch

from egra_dist.model import dropout
from egra_dist.model.dropout import keep_mask

CPU = torch.device("cpu")


def mask(monkeypatch, sizes, step=5, number=0, share=0.3, width=6, seed=0):
    """The masks of all ranks, one below the other."""
    parts = []
    for rank in range(len(sizes)):
        monkeypatch.setattr(dropout, "rank", lambda rank=rank: rank)
        parts.append(keep_mask(sizes, width, share, step, number, CPU, seed))
        assert parts[-1].shape == (sizes[rank], width)
    return torch.cat(parts)


def test_share_that_is_dropped(monkeypatch):
    kept = mask(monkeypatch, [4000], width=64).float()
    assert kept.mean().item() == pytest.approx(0.7, abs=0.004)  # four standard deviations
    assert mask(monkeypatch, [50], share=0.0).all()


def test_mask_does_not_depend_on_how_the_batch_is_shared_out(monkeypatch):
    whole = mask(monkeypatch, [11])
    for sizes in ([6, 5], [4, 4, 3], [11, 0], [1] * 11):
        assert torch.equal(mask(monkeypatch, sizes), whole)


def test_seeds_steps_and_numbers_draw_masks_of_their_own_and_again_the_same(monkeypatch):
    def drawn(seed, step, number):
        return mask(monkeypatch, [200], step=step, number=number, seed=seed)

    keys = itertools.product((0, 1), (0, 1, 2), (0, 1, 63))
    masks = {key: drawn(*key) for key in keys}
    for key, first in masks.items():
        assert torch.equal(drawn(*key), first)
        for other, second in masks.items():
            agreement = (first == second).float().mean().item()
            expected = 1.0 if key == other else 0.7**2 + 0.3**2
            assert agreement == pytest.approx(expected, abs=0.06)


def test_torch_own_stream_is_left_alone(monkeypatch):
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    mask(monkeypatch, [100])
    assert torch.equal(torch.rand(3), expected)
