import numpy as np
import pytest
import torch

from egra_dist.config import RankingSettings
from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import NodePartition, RowPartition
from egra_dist.train.batches import TripletBatches
from egra_dist.train.permutation import PseudorandomPermutation
from tests.matrices import csr_of

NUM_USERS, NUM_ITEMS = 13, 11


@pytest.fixture
def training():
    random = np.random.default_rng(0)
    dense = random.random((NUM_USERS, NUM_ITEMS)) < 0.5
    dense[:, 10] = False  # an item that no one has
    dense[4] = False  # a user without interactions
    return csr_of(dense, has_values=False)


def batches_of(training, num_ranks=1, batch_size=8, seed=5, negatives="seen"):
    nodes = NodePartition(
        RowPartition.even(NUM_USERS, num_ranks), RowPartition.even(NUM_ITEMS, num_ranks)
    )
    ranking = RankingSettings(negatives=negatives)
    made = TripletBatches(training, nodes, batch_size, seed, torch.device("cpu"), ranking)
    order = nodes.position_of_nodes(np.arange(NUM_USERS + NUM_ITEMS))
    return made, np.argsort(order)


def triplets_of(training, num_ranks=1, epoch=0, **options):
    """Global triplets of an epoch as node numbers ``[num_triplets, 3]``, batch by batch."""
    made, node_at = batches_of(training, num_ranks, **options)
    return [
        node_at[np.concatenate([np.stack([s.users, s.positives, s.negatives], 1) for s in shares])]
        for shares in made.epoch(epoch)
    ]


def test_epoch_holds_every_interaction_once(training):
    batches = triplets_of(training)
    seen = {(user, item - NUM_USERS) for batch in batches for user, item, _ in batch}
    users = np.repeat(np.arange(NUM_USERS), np.diff(training.indptr))
    assert seen == set(zip(users.tolist(), training.indices.tolist(), strict=True))
    assert sum(len(batch) for batch in batches) == training.num_entries
    assert [len(batch) for batch in batches[:-1]] == [8] * (len(batches) - 1)


def test_negatives_are_seen_in_training_but_not_by_the_user(training):
    for epoch in range(5):
        for batch in triplets_of(training, epoch=epoch):
            for user, _, negative in batch:
                own = training.indices[training.indptr[user] : training.indptr[user + 1]]
                assert negative - NUM_USERS not in own
                assert negative - NUM_USERS != 10


def test_negatives_of_all_items_include_those_that_no_one_has(training):
    batches = [b for epoch in range(5) for b in triplets_of(training, epoch=epoch, negatives="all")]
    negatives = {negative - NUM_USERS for batch in batches for _, _, negative in batch}
    assert negatives == set(range(NUM_ITEMS))
    for user, _, negative in np.concatenate(batches):
        own = training.indices[training.indptr[user] : training.indptr[user + 1]]
        assert negative - NUM_USERS not in own


def test_epochs_differ_and_repeat_exactly(training):
    first, again, second = (
        np.concatenate(triplets_of(training, epoch=epoch)) for epoch in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, np.concatenate(triplets_of(training, seed=6)))


@pytest.mark.parametrize("num_ranks", [2, 3, 7])
def test_global_batches_do_not_depend_on_the_number_of_ranks(training, num_ranks):
    for one, many in zip(triplets_of(training), triplets_of(training, num_ranks), strict=True):
        assert np.array_equal(one, many)


def test_shares_differ_by_one_at_most(training):
    made, _ = batches_of(training, num_ranks=3)
    for shares in made.epoch(0):
        sizes = [len(share) for share in shares]
        assert max(sizes) - min(sizes) <= 1


def test_user_who_has_everything_ends(training):
    dense = np.ones((2, 3))
    everything = Csr(np.array([0, 3, 6]), np.tile(np.arange(3), 2).astype(np.int32), None, 3)
    nodes = NodePartition(RowPartition.even(2, 1), RowPartition.even(3, 1))
    made = TripletBatches(everything, nodes, 4, 0, torch.device("cpu"))
    assert sum(len(shares[0]) for shares in made.epoch(0)) == dense.size


@pytest.mark.parametrize("first_step", [0, 3])
def test_streamed_order_holds_every_interaction_once_and_starts_anywhere(training, first_step):
    nodes = NodePartition(RowPartition.even(NUM_USERS, 2), RowPartition.even(NUM_ITEMS, 2))
    made = TripletBatches(
        training, nodes, 8, 5, torch.device("cpu"), permute=PseudorandomPermutation
    )
    whole = [torch.cat([share.nodes() for share in shares]) for shares in made.epoch(0)]
    rest = [torch.cat([s.nodes() for s in shares]) for shares in made.epoch(0, first_step)]
    assert len(rest) == len(whole) - first_step
    assert all(map(torch.equal, whole[first_step:], rest))
    triplets = np.concatenate(
        [np.stack([s.users, s.positives], 1) for shares in made.epoch(0) for s in shares]
    )
    users, items = nodes.nodes_at(triplets).T
    pairs = set(zip(users.tolist(), (items - NUM_USERS).tolist(), strict=True))
    expected = np.repeat(np.arange(NUM_USERS), np.diff(training.indptr)).tolist()
    assert pairs == set(zip(expected, training.indices.tolist(), strict=True))
    assert len(triplets) == training.num_entries
