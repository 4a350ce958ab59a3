"""Building a graph from start to end."""

import hashlib
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from egra_dist.graph.knn import cost
from egra_dist.graph.knn.audit import Recall
from egra_dist.graph.knn.auditor import Auditor
from egra_dist.graph.knn.expand import expand
from egra_dist.graph.knn.graph import KnnGraph
from egra_dist.graph.knn.kernel import search
from egra_dist.graph.knn.meter import Meter, Progress
from egra_dist.graph.knn.prepare import Prepared, prepare
from egra_dist.graph.knn.scoring import pair_scores
from egra_dist.graph.knn.selfjoin import SelfJoin, in_prepared_order
from egra_dist.graph.knn.settings import KnnSettings
from egra_dist.graph.knn.statistics import describe_graph, describe_lists
from egra_dist.graph.knn.tasks import Workers

logger = logging.getLogger(__name__)

_ROWS_PER_STEP = 2048
_RAY_SECONDS = 10.0
_EXACT_PROBES = 3


@dataclass(frozen=True)
class Found:
    """Neighbours among the prepared rows, and how they were found."""

    ids: NDArray[np.int32]
    scores: NDArray[np.float32]
    statistics: dict[str, Any]


def build_knn(
    vectors: NDArray,
    settings: KnnSettings,
    present: NDArray[np.bool_] | None = None,
    workdir: Path | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> KnnGraph:
    """Finds the nearest other rows of every row.

    A row that is missing, zero or not finite has no neighbours and is nobody's neighbour.

    Args:
        vectors: ``[num_rows, dim]`` of any float type, possibly memory-mapped.
        settings: How many neighbours, by which similarity, found how.
        present: ``bool [num_rows]``; rows that are False have no vector.
        workdir: Folder for the results of tasks, on a cluster one that all nodes share: a call
            with the same input goes on where one that died stopped. They are removed when the
            graph is whole. A temporary folder when None.
        progress: Is told the number of rows done, in terms of predicted cost.
        workers: Who runs the tasks. By default Ray when it is initialised and there is enough to
            do, else the threads that torch is set to use.

    Returns:
        The graph, with its statistics.

    Raises:
        UserError: If the shapes or types are wrong.
    """
    with working_folder(vectors, settings, present, workdir) as folder:
        prepared = prepare(vectors, settings.metric, present, folder)
        num_rows, dim = prepared.rows.shape
        choice = cost.choose(num_rows, dim, settings)
        meter = Meter(len(vectors), progress)
        if num_rows <= cost.direct_rows(settings):
            found = _search_all(prepared.rows, settings, meter)
        else:
            workers = workers or default_workers(num_rows, dim)
            join = SelfJoin(prepared.rows, settings, folder, workers, meter)
            found = _join_all(join, choice)
        return assemble(vectors, settings, prepared, found)


def assemble(vectors: NDArray, settings: KnnSettings, prepared: Prepared, found: Found) -> KnnGraph:
    """The graph of the whole table, from that of its distinct, usable rows."""
    rows = torch.from_numpy(prepared.rows)
    own = torch.arange(len(rows))
    own_scores = pair_scores(rows, own, rows, own, settings.metric).numpy()
    neighbors, scores = expand(found.ids, found.scores, own_scores, prepared.duplicates)
    statistics = {
        "metric": settings.metric,
        "k": settings.k,
        "num_rows": len(vectors),
        "dim": vectors.shape[1],
        "num_unusable_rows": prepared.num_unusable,
        "num_distinct_rows": len(rows),
        **found.statistics,
        **describe_graph(neighbors, num_usable=len(prepared.duplicates.members)),
    }
    return KnnGraph(neighbors, scores, statistics)


@contextmanager
def working_folder(
    vectors: NDArray,
    settings: KnnSettings,
    present: NDArray[np.bool_] | None,
    workdir: Path | None,
    purpose: str = "build",
) -> Iterator[Path]:
    """The folder of this input under ``workdir``; removed when the graph is whole."""
    if workdir is None:
        with tempfile.TemporaryDirectory(prefix="knn-") as name:
            yield Path(name)
    else:
        folder = workdir / f"{purpose}-{_digest(vectors, settings, present)}"
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        shutil.rmtree(folder)


def _digest(vectors: NDArray, settings: KnnSettings, present: NDArray[np.bool_] | None) -> str:
    """Names the input by its content."""
    digest = hashlib.sha256(json.dumps(settings.model_dump(), sort_keys=True).encode())
    digest.update(f"{vectors.shape} {vectors.dtype}".encode())
    for start in range(0, len(vectors), _ROWS_PER_STEP):
        digest.update(np.ascontiguousarray(vectors[start : start + _ROWS_PER_STEP]).data)
    if present is not None:
        digest.update(np.packbits(present).data)
    return digest.hexdigest()[:16]


def default_workers(num_rows: int, dim: int) -> Workers:
    """Ray where it runs and there is enough to do, else the threads of this process."""
    ray = sys.modules.get("ray")
    expensive = cost.sweep_seconds(num_rows, dim) > _RAY_SECONDS
    return Workers(torch.get_num_threads(), ray=bool(expensive and ray and ray.is_initialized()))


def _search_all(rows: NDArray[np.float32], settings: KnnSettings, meter: Meter) -> Found:
    ids = np.empty((len(rows), settings.k), np.int32)
    scores = np.empty((len(rows), settings.k), np.float32)
    table = torch.from_numpy(rows)
    meter.expect({"exact": 1.0})
    with meter.stage("exact", len(rows)) as on_done:
        for start in range(0, len(rows), _ROWS_PER_STEP):
            block = slice(start, start + _ROWS_PER_STEP)
            own = torch.arange(len(rows))[block]
            found = search(table[block], table, settings.k, settings.metric, own)
            ids[block], scores[block] = found["id"], found["score"]
            on_done(len(found))
    reason = f"{len(rows):,} rows are few enough to compare all with all at once"
    recall = Recall(1.0, 0.0, len(rows)).as_statistics(settings.recall)
    return Found(ids, scores, {"method": "exact", "reason": reason, **recall})


def _join_all(join: SelfJoin, choice: cost.Choice) -> Found:
    settings = join.settings
    num_rows = len(join.rows)
    audit = Auditor(join) if choice.method == "routed" else None
    probes = settings.probes or _EXACT_PROBES
    if audit:
        choice, probes = audit.choose_probes(choice)
    exact = choice.method == "exact"
    _expect(join, probes, exact)
    layout, edges = join.routed(min(probes, _EXACT_PROBES) if exact else probes)
    if exact:
        edges = join.exact(edges)
    ids, scores = in_prepared_order(layout, edges, settings.k)
    recall = audit.recall(scores) if audit else Recall(1.0, 0.0, num_rows)
    statistics = {
        "method": choice.method,
        "reason": choice.reason,
        **recall.as_statistics(settings.recall),
        "num_probes": probes,
        **describe_lists(layout),
    }
    if recall.value < settings.recall:
        logger.warning("knn: recall %.4f is below the target %g", recall.value, settings.recall)
    return Found(ids, scores, statistics)


def _expect(join: SelfJoin, probes: int, exact: bool) -> None:
    num_rows, dim = join.rows.shape
    pairs = num_rows * cost.list_size_of(num_rows, join.settings)
    join.meter.expect(
        {
            f"route-{probes}": num_rows * 2e-6,
            "within": 2 * cost.join_seconds(pairs, dim),
            "visit": cost.join_seconds(pairs * (probes - 1), dim),
            "merge": num_rows * 2e-6,
        }
    )
    if exact:
        sweep = cost.join_seconds(num_rows**2 / 2, dim)
        join.meter.expect({"sweep": sweep, "merge-all": num_rows * 2e-6})
