"""Building a graph from start to end."""

import hashlib
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from egra_dist.graph.knn import cost
from egra_dist.graph.knn.expand import expand
from egra_dist.graph.knn.graph import KnnGraph
from egra_dist.graph.knn.meter import Meter, Progress
from egra_dist.graph.knn.methods import Found, join_all, search_all
from egra_dist.graph.knn.nodes import warm_up
from egra_dist.graph.knn.prepare import Prepared, check_vectors, prepare
from egra_dist.graph.knn.scoring import pair_scores
from egra_dist.graph.knn.selfjoin import SelfJoin
from egra_dist.graph.knn.settings import KnnSettings
from egra_dist.graph.knn.statistics import describe_graph
from egra_dist.graph.knn.tasks import Workers
from egra_dist.manifest import digest_of

logger = logging.getLogger(__name__)

_ROWS_PER_STEP = 2048
_RAY_SECONDS = 10.0


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
            do, else the threads that torch is set to use; in either case GPUs where there are any.

    Returns:
        The graph, with its statistics.

    Raises:
        UserError: If the shapes or types are wrong.
    """
    check_vectors(vectors, present)
    meter = Meter(len(vectors), progress)
    workers = workers or default_workers(*vectors.shape)
    if workers.ray and len(vectors) > cost.direct_rows(settings):
        warm_up()
    with working_folder(vectors, settings, present, workdir) as folder:
        prepared = prepare(vectors, settings.metric, present, folder)
        num_rows, dim = prepared.rows.shape
        if num_rows <= cost.direct_rows(settings):
            found = search_all(prepared.rows, settings, meter)
        else:
            join = SelfJoin(prepared.rows, settings, folder, workers, meter)
            found = _join(join, cost.choose(num_rows, dim, settings, workers.device))
        return assemble(vectors, settings, prepared, found, meter)


def _join(join: SelfJoin, choice: cost.Choice) -> Found:
    if join.workers.device == "cpu":
        return join_all(join, choice)
    from egra_dist.graph.knn.accelerator.method import fits, join_on_device

    if fits(join):
        return join_on_device(join, choice)
    logger.info("knn: the rows do not fit into a GPU, processors do the work")
    return _join(replace(join, workers=replace(join.workers, device="cpu")), choice)


def assemble(
    vectors: NDArray, settings: KnnSettings, prepared: Prepared, found: Found, meter: Meter
) -> KnnGraph:
    """The graph of the whole table, from that of its distinct, usable rows."""
    own_scores = _own_scores(prepared, settings)
    neighbors, scores = expand(found.ids, found.scores, own_scores, prepared.duplicates)
    statistics = {
        "metric": settings.metric,
        "k": settings.k,
        "num_rows": len(vectors),
        "dim": vectors.shape[1],
        "num_unusable_rows": prepared.num_unusable,
        "num_distinct_rows": len(prepared.rows),
        **found.statistics,
        **describe_graph(neighbors, num_usable=len(prepared.duplicates.members)),
        "core_seconds": meter.core_seconds(),
    }
    return KnnGraph(neighbors, scores, statistics)


def _own_scores(prepared: Prepared, settings: KnnSettings) -> NDArray[np.float32]:
    """Score of each row with itself, hence with its duplicates, where there are any."""
    if prepared.duplicates.all_distinct:
        return np.empty(0, np.float32)
    rows = torch.from_numpy(prepared.rows)
    own = torch.arange(len(rows))
    return pair_scores(rows, own, rows, own, settings.metric).numpy()


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
    """Names a build by its settings and the content of its input."""
    inputs = {"vectors": content_digest(vectors, present)}
    return digest_of("knn-work", settings.model_dump(mode="json"), inputs)


def content_digest(vectors: NDArray, present: NDArray[np.bool_] | None) -> str:
    """Digest of a table of vectors: 16 hexadecimal digits."""
    digest = hashlib.sha256(f"{vectors.shape} {vectors.dtype}".encode())
    for start in range(0, len(vectors), _ROWS_PER_STEP):
        digest.update(np.ascontiguousarray(vectors[start : start + _ROWS_PER_STEP]).data)
    if present is not None:
        digest.update(np.packbits(present).data)
    return digest.hexdigest()[:16]


def is_worth_ray(num_rows: int, dim: int) -> bool:
    """Whether there is enough to do for more than this process."""
    return cost.sweep_seconds(num_rows, dim) > _RAY_SECONDS


def default_workers(num_rows: int, dim: int) -> Workers:
    """Ray where it runs and there is enough to do, else this process; GPUs where there are any."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized() and is_worth_ray(num_rows, dim):
        # A build of torch for processors finds no GPU, however many the cluster has.
        has_gpu = torch.version.cuda is not None and ray.cluster_resources().get("GPU", 0) >= 1
        return Workers(ray=True, device="cuda" if has_gpu else "cpu")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Workers(torch.get_num_threads(), device=device)
