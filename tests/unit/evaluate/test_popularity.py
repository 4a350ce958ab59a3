import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egra_dist.config import EvaluationSettings
from egra_dist.evaluate import popularity
from egra_dist.evaluate.protocol import evaluate_vectors
from egra_dist.evaluate.split import HeldOut, Split
from egra_dist.graph.csr import Csr, starts_of


def matrix(dense):
    _, columns = np.nonzero(dense)
    return Csr(starts_of(dense.sum(1)), columns.astype(np.int32), None, dense.shape[1])


@given(st.integers(0, 2**16), st.booleans())
@settings(max_examples=25, deadline=None)
def test_ranks_by_counting_are_those_of_scores(seed, has_more):
    """Also where a positive is masked, a user has seen nothing, and items are equally popular."""
    random = np.random.default_rng(seed)
    training, also_seen, positives = (
        random.random((3, 9, 14)) < np.array([0.3, 0.1, 0.2])[:, None, None]
    )
    also = matrix(also_seen) if has_more else None
    held_out = HeldOut.from_interactions(*np.nonzero(positives), 14)
    split = Split(held_out, matrix(training), also)
    chosen = EvaluationSettings(cutoffs=[1, 3, 5])
    counts = training.sum(0).astype(np.float32)[:, None]
    expected = evaluate_vectors(split, np.ones((9, 1), np.float32), counts, chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(popularity, "_USERS_PER_BLOCK", 4)
        assert popularity.evaluate_popularity(split, chosen) == expected
