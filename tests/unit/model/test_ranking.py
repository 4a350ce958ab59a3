"""The ranking loss over a batch, against plain formulas in float64."""

import contextlib
import math

import numpy as np
import pytest
import torch

from egra_dist.config import RankingSettings
from egra_dist.model import ranking
from egra_dist.model.ranking import RankingLoss, first_occurrences

NUM_USERS = 3
COUNTS = torch.tensor([0.0] * NUM_USERS + [40, 20, 10, 5, 3, 1, 1])  # users, then items
ITEMS = torch.arange(NUM_USERS, len(COUNTS))
DIM = 5


def draw(positives, negatives, seed=0):
    """A batch of these items, every item with one row wherever it occurs."""
    torch.manual_seed(seed)
    table = torch.randn(len(COUNTS), DIM)
    users = torch.randn(len(positives), DIM)
    ids = torch.tensor(positives), torch.tensor(negatives)
    rows = [table[part].clone().requires_grad_() for part in ids]
    return users, *rows, [ids], table


def reference(users, table, positives, candidates, log_shares, temperature):
    """Sum of ``-log softmax`` over the distinct candidates."""
    total = 0.0
    for user, positive in zip(users.double(), positives, strict=True):
        logits = {
            item: float(user @ table[item].double()) / temperature - log_shares[item]
            for item in candidates
        }
        total += math.log(sum(math.exp(value) for value in logits.values())) - logits[positive]
    return total


def log_inclusion(item, num_positives, num_uniform):
    absent = (1 - COUNTS[item].item() / COUNTS.sum().item()) ** num_positives
    return math.log(1 - absent * (1 - 1 / len(ITEMS)) ** num_uniform)


POSITIVES, NEGATIVES = [3, 4, 3, 5, 3], [9, 9, 4, 7, 8]


@pytest.mark.parametrize("num_negatives", [0, 2, 4, 5, 1000])
@pytest.mark.parametrize("log_q", [True, False])
def test_softmax_over_distinct_positives_and_the_first_negatives(num_negatives, log_q):
    settings = RankingSettings(
        loss="softmax", num_negatives=num_negatives, log_q=log_q, temperature=0.5
    )
    users, positives, negatives, ids, table = draw(POSITIVES, NEGATIVES)
    loss = RankingLoss(settings, COUNTS)(users, positives, negatives, ids)
    taken = NEGATIVES[:num_negatives]
    candidates = set(POSITIVES) | set(taken)
    log_shares = {
        item: log_inclusion(item, len(POSITIVES), len(taken)) if log_q else 0.0
        for item in candidates
    }
    expected = reference(users, table, POSITIVES, candidates, log_shares, 0.5)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_negatives_beyond_the_first_ones_and_repeated_ones_do_not_count():
    users, positives, negatives, ids, _ = draw(POSITIVES, NEGATIVES)
    settings = RankingSettings(loss="softmax", num_negatives=4)
    RankingLoss(settings, COUNTS)(users, positives, negatives, ids).backward()
    counted = negatives.grad.abs().sum(1) > 0
    assert counted.tolist() == [True, False, False, True, False]  # 9 again, 4 a positive, 8 fifth


@pytest.mark.parametrize("power", [0.0, 0.75])
def test_correction_is_the_probability_to_be_among_the_candidates(power):
    """Against the share of random batches in which each item is one."""
    num_positives, num_uniform, num_batches = 6, 4, 20_000
    random = np.random.default_rng(0)
    popularity = (COUNTS[NUM_USERS:] / COUNTS.sum()).numpy().astype(np.float64)
    popularity /= popularity.sum()
    by_popularity = random.choice(len(ITEMS), (num_batches, num_positives), p=popularity)
    weights = popularity**power / (popularity**power).sum()
    others = random.choice(len(ITEMS), (num_batches, num_uniform), p=weights)
    drawn = np.concatenate([by_popularity, others], axis=1)
    frequencies = np.array([(drawn == item).any(axis=1).mean() for item in range(len(ITEMS))])

    # Of users of length 0 the softmax is that of -log q alone, and one-hot rows show it.
    users = torch.zeros(num_positives, len(COUNTS), requires_grad=True)
    ids = torch.tensor([3, 4, 5, 6, 7, 8]), torch.tensor([9, 3, 3, 3, 3, 3])
    rows = [torch.eye(len(COUNTS))[part] for part in ids]
    settings = RankingSettings(
        loss="softmax", num_negatives=num_uniform, temperature=1, negative_power=power
    )
    RankingLoss(settings, COUNTS)(users, *rows, [ids]).backward()
    softmax = (users.grad[0] + rows[0][0])[NUM_USERS:].numpy()
    expected = (1 / frequencies) / (1 / frequencies).sum()
    np.testing.assert_allclose(softmax, expected, rtol=0.04)


def test_bpr_takes_one_negative_for_each_positive():
    users, positives, negatives, ids, _ = draw(POSITIVES, NEGATIVES)
    loss = RankingLoss(RankingSettings(loss="bpr"), COUNTS)(users, positives, negatives, ids)
    margins = (users.double() * (positives - negatives).double()).sum(1)
    assert loss.item() == pytest.approx(-torch.sigmoid(margins).log().sum().item(), rel=1e-5)


def test_first_occurrences_over_all_ranks():
    shares = [torch.tensor([5, 2, 5]), torch.tensor([], dtype=torch.int64), torch.tensor([2, 7])]
    assert [mask.tolist() for mask in first_occurrences(shares)] == [
        [True, True, False],
        [],
        [False, True],
    ]


class Sent(Exception):
    """A rank has sent its rows and waits for those of the others."""


def loss_of_ranks(monkeypatch, loss, users, rows, ids, sizes):
    """The sum over ranks that hold these numbers of triplets each, all in this process."""
    shares = list(zip(*(part.split(sizes) for part in (users, *rows)), strict=True))
    all_ids = list(zip(*(part.split(sizes) for part in ids), strict=True))
    sent = {}

    def gather(own, _):
        if len(sent) < len(sizes):
            sent[ranking.rank()] = own
            raise Sent
        return torch.cat([sent[rank] for rank in range(len(sizes))])

    monkeypatch.setattr(ranking, "gather_rows", gather)
    total = 0.0
    for rank in [*range(len(sizes)), *range(len(sizes))]:
        monkeypatch.setattr(ranking, "rank", lambda rank=rank: rank)
        with contextlib.suppress(Sent):
            total += loss(*shares[rank], all_ids).item()
    return total


@pytest.mark.parametrize("num_negatives", [0, 3, 5])
def test_the_same_row_stands_for_an_item_however_the_batch_is_shared_out(
    monkeypatch, num_negatives
):
    """With modality dropout an item has another row wherever it occurs in the batch."""
    torch.manual_seed(0)
    ids = torch.tensor([3, 4, 3, 5, 9]), torch.tensor([9, 5, 4, 3, 8])
    users, *rows = torch.randn(3, len(ids[0]), DIM)
    loss = RankingLoss(RankingSettings(loss="softmax", num_negatives=num_negatives), COUNTS)
    whole = loss_of_ranks(monkeypatch, loss, users, rows, ids, [5])
    for sizes in ([3, 2], [2, 2, 1], [5, 0], [1] * 5):
        shared = loss_of_ranks(monkeypatch, loss, users, rows, ids, sizes)
        assert shared == pytest.approx(whole, rel=1e-5)
