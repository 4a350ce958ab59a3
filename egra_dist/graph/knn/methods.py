"""The methods: all at once, all pairs by tiles, routed, and routed on a projection."""

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from egra_dist.graph.knn import cost
from egra_dist.graph.knn.audit import Recall
from egra_dist.graph.knn.auditor import Auditor
from egra_dist.graph.knn.kernel import search
from egra_dist.graph.knn.meter import Meter
from egra_dist.graph.knn.projection import projected_join, rerank
from egra_dist.graph.knn.routing import Reach
from egra_dist.graph.knn.selfjoin import SelfJoin
from egra_dist.graph.knn.settings import KnnSettings
from egra_dist.graph.knn.visits import ROUNDS

logger = logging.getLogger(__name__)

_ROWS_PER_STEP = 2048
_EXACT_REACH = Reach(float("inf"), 4)
_CANDIDATES_PER_NEIGHBOR = (4, 10)


@dataclass(frozen=True)
class Found:
    """Neighbours among the prepared rows, and how they were found.

    Attributes:
        ids: ``int32 [num_rows, k]`` prepared rows, -1 for none.
        scores: ``float32 [num_rows, k]``.
        statistics: Method, reason, recall and lists.
    """

    ids: NDArray[np.int32]
    scores: NDArray[np.float32]
    statistics: dict[str, Any]


def search_all(rows: NDArray[np.float32], settings: KnnSettings, meter: Meter) -> Found:
    """Compares all rows with all in this process."""
    ids = np.empty((len(rows), settings.k), np.int32)
    scores = np.empty((len(rows), settings.k), np.float32)
    table = torch.from_numpy(rows)
    meter.expect({"exact": 1.0})
    with meter.stage("exact", len(rows)) as on_done:
        for start in range(0, len(rows), _ROWS_PER_STEP):
            started = time.process_time()
            block = slice(start, start + _ROWS_PER_STEP)
            own = torch.arange(len(rows))[block]
            found = search(table[block], table, settings.k, settings.metric, own)
            ids[block], scores[block] = found["id"], found["score"]
            on_done(len(found), time.process_time() - started)
    reason = f"{len(rows):,} rows are few enough to compare all with all at once"
    recall = Recall(1.0, 0.0, len(rows)).as_statistics(settings.recall)
    return Found(ids, scores, {"method": "exact", "reason": reason, **recall})


def join_all(join: SelfJoin, choice: cost.Choice) -> Found:
    """Joins by tasks: all pairs, or as few as the recall needs."""
    if choice.method == "exact":
        return _exact(join, choice)
    if join.rows.shape[1] >= cost.WIDE_DIM:
        return _projected(join, choice)
    audit = Auditor(join)
    choice, reach = audit.choose_reach(choice)
    if choice.method == "exact":
        return _exact(join, choice)
    _expect(join, reach)
    layout, edges = join.routed(reach)
    ids, scores = join.in_prepared_order(edges)
    facts = join.describe(layout)
    return audited(Found(ids, scores, facts), join, choice, audit.recall(scores))


def _exact(join: SelfJoin, choice: cost.Choice) -> Found:
    num_rows, dim = join.rows.shape
    _expect(join, _EXACT_REACH)
    sweep = cost.join_seconds(num_rows**2 / 2, dim)
    join.meter.expect({"sweep": sweep, "merge-all": num_rows * 2e-6})
    _, edges = join.routed(_EXACT_REACH)
    ids, scores = join.in_prepared_order(join.exact(edges), "gather-all")
    return audited(Found(ids, scores, {}), join, choice, Recall(1.0, 0.0, num_rows))


def _projected(join: SelfJoin, choice: cost.Choice) -> Found:
    """Routed on fewer dimensions with more candidates, which are scored in full width."""
    settings = join.settings
    for factor in _CANDIDATES_PER_NEIGHBOR:
        narrow = projected_join(join, factor)
        audit = Auditor(join, routes=narrow)
        chosen, reach = audit.choose_reach(choice)
        if chosen.method == "exact":
            return _exact(join, chosen)
        _expect(narrow, reach)
        layout, edges = narrow.routed(reach)
        ids, scores = rerank(join, narrow.in_prepared_order(edges)[0], factor)
        recall = audit.recall(scores)
        if recall.value >= settings.recall:
            break
        logger.info("knn: recall %.4f with %d candidates per row", recall.value, ids.shape[1])
    facts = {
        "projected_dim": narrow.rows.shape[1],
        "num_candidates": narrow.settings.k,
        **narrow.describe(layout),
    }
    return audited(Found(ids, scores, facts), join, chosen, recall)


def audited(found: Found, join: SelfJoin, choice: cost.Choice, recall: Recall) -> Found:
    """Adds the method and its recall to what was found, and warns of a recall missed."""
    target = join.settings.recall
    if recall.value < target:
        logger.warning("knn: recall %.4f is below the target %g", recall.value, target)
    facts = {"method": choice.method, "reason": choice.reason, **recall.as_statistics(target)}
    return replace(found, statistics={**facts, **found.statistics})


def _expect(join: SelfJoin, reach: Reach) -> None:
    num_rows, dim = join.rows.shape
    pairs = num_rows * cost.list_size_of(num_rows, join.settings)
    elsewhere = cost.join_seconds(pairs * min(6, reach.max_probes - 1), dim)
    join.meter.expect(
        {
            "assign": num_rows * 1e-6,
            "route": num_rows * 2e-6,
            "within": 2 * cost.join_seconds(pairs, dim),
            **{f"visit-{name}": elsewhere / len(ROUNDS) for name in ROUNDS},
            **{f"merge-{name}": num_rows * 1e-6 for name in ROUNDS},
            "gather": num_rows * 5e-7,
        }
    )
