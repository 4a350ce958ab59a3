"""The protocol on small splits: what is masked, who counts, what each slice holds."""

import numpy as np
import pytest
import torch

from egra_dist.config import EvaluationSettings
from egra_dist.evaluate.protocol import evaluate_scores, evaluate_vectors
from egra_dist.evaluate.slices import Slice
from egra_dist.evaluate.split import HeldOut, Split
from egra_dist.graph.csr import Csr

SETTINGS = EvaluationSettings(cutoffs=[1, 2])
NUM_USERS, NUM_ITEMS = 4, 6


def pairs(*values):
    return np.array(values, dtype=np.int32).reshape(-1, 2).T


def matrix(*values):
    users, items = pairs(*values)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=NUM_USERS))])
    return Csr(indptr.astype(np.int64), items, None, NUM_ITEMS)


def split_of(held_out, training=(), also_seen=None, slices=()):
    seen = None if also_seen is None else matrix(*also_seen)
    positives = HeldOut.from_interactions(*pairs(*held_out), NUM_ITEMS)
    return Split(positives, matrix(*training), seen, slices)


def evaluate(split):
    """All users rank items 5, 4, 3, 2, 1, 0."""
    users = np.ones((NUM_USERS, 1), dtype=np.float32)
    items = np.arange(NUM_ITEMS, dtype=np.float32)[:, None]
    by_vectors = evaluate_vectors(split, users, items, SETTINGS)
    scores = torch.arange(NUM_ITEMS, dtype=torch.float32)
    by_scores = evaluate_scores(split, lambda users: scores.repeat(len(users), 1), SETTINGS)
    assert by_vectors == by_scores
    return by_vectors


def test_only_users_with_held_out_items_count():
    evaluation = evaluate(split_of([(0, 5), (2, 0)]))
    assert evaluation.num_users == 2
    assert evaluation.metrics["recall_at_1"] == 0.5


def test_training_positives_are_masked():
    evaluation = evaluate(split_of([(0, 3)], training=[(0, 4), (0, 5), (1, 3)]))
    assert evaluation.metrics["recall_at_1"] == evaluation.metrics["ndcg_at_2"] == 1


def test_validation_positives_are_masked_only_when_asked():
    assert evaluate(split_of([(1, 4)])).metrics["recall_at_1"] == 0
    assert evaluate(split_of([(1, 4)], also_seen=[(1, 5)])).metrics["recall_at_1"] == 1


def test_item_slices_count_their_positives_and_rank_everything():
    low = Slice("low", items=np.arange(NUM_ITEMS) < 5)
    evaluation = evaluate(split_of([(0, 5), (0, 4), (1, 5)], slices=[low]))
    figures = evaluation.slices["low"]
    assert figures["num_users"] == 1
    assert figures["recall_at_1"] == 0
    assert figures["recall_at_2"] == 1
    assert figures["ndcg_at_2"] == pytest.approx(1 / np.log2(3))


def test_user_slices_count_their_users():
    later = Slice("later", users=np.arange(NUM_USERS) >= 2)
    figures = evaluate(split_of([(0, 5), (2, 0), (3, 5)], slices=[later])).slices["later"]
    assert figures["num_users"] == 2
    assert figures["recall_at_1"] == 0.5


def test_an_empty_split_and_an_empty_slice_have_no_figures():
    nobody = Slice("nobody", users=np.zeros(NUM_USERS, dtype=bool))
    evaluation = evaluate(split_of([], slices=[nobody]))
    assert (evaluation.num_users, evaluation.metrics) == (0, {})
    assert evaluate(split_of([(0, 5)], slices=[nobody])).slices == {"nobody": {"num_users": 0}}


def test_fewer_items_than_the_cutoff():
    settings = EvaluationSettings(cutoffs=[50])
    users, items = np.ones((NUM_USERS, 1), np.float32), np.ones((NUM_ITEMS, 1), np.float32)
    evaluation = evaluate_vectors(split_of([(0, 5), (1, 0)]), users, items, settings)
    assert evaluation.metrics["recall_at_50"] == 1
    assert evaluation.metrics["precision_at_50"] == pytest.approx(1 / 50)


def test_repeated_and_unsorted_positives_are_one():
    positives = HeldOut.from_interactions(*pairs((2, 1), (0, 3), (2, 1), (0, 0)), NUM_ITEMS)
    assert positives.users.tolist() == [0, 0, 2]
    assert positives.items.tolist() == [0, 3, 1]


def test_sample_holds_all_items_of_some_users_the_same_each_time():
    random = np.random.default_rng(1)
    users, items = random.integers(50, size=300), random.integers(NUM_ITEMS, size=300)
    everybody = HeldOut.from_interactions(users, items, NUM_ITEMS)
    some = everybody.sample(20)
    chosen = np.unique(some.users)
    assert len(chosen) == 20
    assert np.array_equal(some.items, everybody.items[np.isin(everybody.users, chosen)])
    assert np.array_equal(chosen, np.unique(everybody.sample(20).users))
    assert everybody.sample(50) is everybody
