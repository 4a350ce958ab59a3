"""The baseline that recommends to everybody the items with most training interactions.

Everybody's ranking is the same but for what is masked, so that an item's rank is its place in the
order of popularity less the number of masked items before it: nothing is scored.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from egra_dist.config import EvaluationSettings
from egra_dist.evaluate.report import Evaluation, EvaluationSums
from egra_dist.evaluate.split import HeldOut, Split
from egra_dist.graph.products import column_counts

_USERS_PER_BLOCK = 1 << 16
_NEVER = 1 << 40


def evaluate_popularity(split: Split, settings: EvaluationSettings) -> Evaluation:
    """Evaluates the ranking of items by their number of training interactions.

    The same as :func:`egra_dist.evaluate.protocol.evaluate_vectors` of these numbers, ties going to
    the lower item; the training matrix may be memory-mapped.
    """
    counts = column_counts(split.training)
    places = np.empty(len(counts), dtype=np.int64)
    places[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    sums = EvaluationSums(settings.cutoffs, split.slices)
    for start in range(0, split.training.num_rows, _USERS_PER_BLOCK):
        positives = split.held_out.within(start, start + _USERS_PER_BLOCK)
        ranks = _ranks(split, positives, places)
        sums.add(positives.users, positives.items, torch.from_numpy(ranks))
    return sums.result()


def _ranks(split: Split, positives: HeldOut, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank of each positive; beyond every cutoff where it is masked."""
    num_items = len(places)
    users, rows = np.unique(positives.users, return_inverse=True)
    seen_rows, seen_items = split.seen_by(users)
    seen = np.unique(seen_rows * num_items + places[seen_items])
    own = rows * num_items + places[positives.items]
    position = np.searchsorted(seen, own)
    ranks = places[positives.items] - (position - np.searchsorted(seen, rows * num_items))
    is_masked = np.append(seen, -1)[position] == own
    return np.where(is_masked, _NEVER, ranks)
