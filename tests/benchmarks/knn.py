"""What the k-nearest-neighbour graph costs, beside the libraries that also build one.

    python -m tests.benchmarks.knn [--sizes 100000 400000] [--methods exact routed ...] [--write]

Every row is measured in a process of its own, on one thread unless it says otherwise: CPU seconds
of all processes (user and system, Ray's own included; not reading the vectors, nor pynndescent's
compilation, which a first call on few rows does), wall seconds (once Ray's workers have started and
loaded the libraries, which the CPU seconds include), the most memory at any time, and recall@10 on
2,000 rows. Rows are kept in ``rows.jsonl`` of the folder as they are measured, with the processor
time of each stage, so that a call goes on where the last one stopped; ``--write`` puts the table
into ``docs/performance.md``, and the stages of the routed method into ``docs/scale.md``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tests.benchmarks.knn_data import DATA, vectors_file
from tests.benchmarks.knn_tables import write_tables

K = 10
AUDIT_ROWS = 2000
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}


WARM_UP_ROWS = 5000


def truth(path):
    """Rows drawn for the audit, and the score of the last of their exact neighbours."""
    import faiss

    cached = path.with_suffix(".truth.npz")
    vectors = np.load(path, mmap_mode="r")
    rows = np.sort(np.random.default_rng(1).choice(len(vectors), AUDIT_ROWS, replace=False))
    if not cached.exists():
        best = np.full((AUDIT_ROWS, K + 1), -np.inf, np.float32)
        for first in range(0, len(vectors), 1 << 18):
            block = np.ascontiguousarray(vectors[first : first + (1 << 18)])
            scores = faiss.knn(vectors[rows], block, K + 1, metric=faiss.METRIC_INNER_PRODUCT)[0]
            best = -np.sort(-np.concatenate([best, scores], axis=1), axis=1)[:, : K + 1]
        np.savez(cached, last=best[:, K])  # the first is the row itself
    return rows, np.load(cached)["last"]


def recall_of(path, neighbors):
    """Share of the neighbours that are at least as near as the last true one."""
    vectors = np.load(path, mmap_mode="r")
    rows, last = truth(path)
    found = []
    for row, limit, ids in zip(rows, last, neighbors[rows], strict=True):
        ids = np.unique(ids[(ids >= 0) & (ids != row)])
        found.append((vectors[ids] @ vectors[row] >= limit - 1e-5).sum() / K)
    return float(np.mean(found))


def ours(method, workers=0, recall=0.98):
    def build(path):
        from egra_dist.graph.knn import KnnSettings, Workers, build_knn

        vectors = np.load(path, mmap_mode="r")
        settings = KnnSettings(k=K, method=method, recall=recall)
        graph = build_knn(vectors, settings, workers=Workers(1, ray=workers > 0))
        return graph.neighbors, {
            name: graph.statistics.get(name)
            for name in ("lists_per_row", "num_lists", "core_seconds")
        }

    return build


def faiss_knn(path):
    import faiss

    vectors = np.load(path)
    return faiss.knn(vectors, vectors, K + 1, metric=faiss.METRIC_INNER_PRODUCT)[1], {}


def big_batch(probes):
    def build(path):
        import faiss
        from faiss.contrib.big_batch_search import big_batch_search

        vectors = np.load(path)
        num_lists = int(4 * len(vectors) ** 0.5)
        index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(vectors.shape[1]),
            vectors.shape[1],
            num_lists,
            faiss.METRIC_INNER_PRODUCT,
        )
        index.cp.max_points_per_centroid = 64
        index.train(vectors)
        index.add(vectors)
        index.nprobe = probes
        found = big_batch_search(index, vectors, K + 1, method="knn_function", verbose=False)
        return found[1], {"num_lists": num_lists}

    return build


def pynndescent(num_neighbors):
    def build(path):
        from pynndescent import NNDescent

        def index(vectors):
            return NNDescent(
                vectors, metric="dot", n_neighbors=num_neighbors, n_jobs=1, random_state=0
            )

        vectors = np.load(path)
        before = sum(os.times()[:4])
        index(vectors[:WARM_UP_ROWS])  # compiles
        compilation = sum(os.times()[:4]) - before
        return index(vectors).neighbor_graph[0][:, : K + 1], {"warm_up": compilation}

    return build


def hnswlib(path):
    import hnswlib as library

    vectors = np.load(path)
    index = library.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), M=16, ef_construction=100)
    index.set_num_threads(1)
    index.add_items(vectors)
    index.set_ef(64)
    return index.knn_query(vectors, K + 1)[0].astype(np.int64), {}


METHODS = {
    "exact": ours("exact"),
    "exact, 1 Ray worker": ours("exact", 1),
    "exact, 2 Ray workers": ours("exact", 2),
    "routed .95": ours("routed", recall=0.95),
    "routed .98": ours("routed"),
    "routed .98, 1 Ray worker": ours("routed", 1),
    "routed .98, 2 Ray workers": ours("routed", 2),
    "faiss.knn": faiss_knn,
    "faiss big_batch_search, 16 probes": big_batch(16),
    "faiss big_batch_search, 32 probes": big_batch(32),
    "pynndescent, 20 neighbours": pynndescent(20),
    "pynndescent, 30 neighbours": pynndescent(30),
    "hnswlib, M 16, ef 64": hnswlib,
}


NOT_REQUIRED = ("hnswlib", "pynndescent")


def measure(method, path):
    """Runs one method in this process and prints one line of JSON."""
    import psutil

    from egra_dist.config import ClusterSettings

    workers = int(method.split(", ")[1][0]) if "Ray" in method else 0
    np.load(path, mmap_mode="r").sum()  # from the disk into the page cache
    before, started = sum(os.times()[:4]), time.perf_counter()
    if workers:
        import ray

        from egra_dist.cluster.session import ray_session
        from egra_dist.graph.knn.nodes import warm_up

        with ray_session(ClusterSettings(num_workers=workers, cpus_per_worker=1)):
            ray.get(warm_up())
            ready = time.perf_counter()
            neighbors, facts = METHODS[method](path)
            wall = time.perf_counter() - ready
            others = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
        cpu = sum(os.times()[:2]) - before + sum(sum(times[:4]) for times in others)
    else:
        neighbors, facts = METHODS[method](path)
        wall, cpu = time.perf_counter() - started, sum(os.times()[:4]) - before
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    warm_up = facts.pop("warm_up", 0.0)
    row = {"cpu": cpu - warm_up, "wall": wall, "peak_mb": peak}
    print(json.dumps({**row, "recall": recall_of(path, neighbors), **facts}))


def is_installed(method):
    """Whether the library that a row needs is there; says so where it is not."""
    library = method.split(",")[0]
    if library not in NOT_REQUIRED or find_spec(library):
        return True
    print(f"{method}: left out, {library} is not installed (pip install {library})")
    return False


def run_row(method, path):
    command = [sys.executable, "-m", "tests.benchmarks.knn", "--measure", method, str(path)]
    environment = {**os.environ, **ONE_THREAD}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[64])
    parser.add_argument("--data", nargs="+", default=["clustered"], choices=DATA)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "knn-bench")
    parser.add_argument("--write", action="store_true", help="write the table into the docs")
    parser.add_argument("--measure", nargs=2, metavar=("METHOD", "FILE"))
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure[0], Path(options.measure[1]))
    options.folder.mkdir(parents=True, exist_ok=True)
    methods = list(filter(is_installed, options.methods))
    results = options.folder / "rows.jsonl"
    rows = [json.loads(line) for line in results.open()] if results.exists() else []
    for data in options.data:
        for num_rows in options.sizes:
            for dim in options.dims:
                path = vectors_file(options.folder, data, num_rows, dim)
                truth(path)
                for method in methods:
                    case = {"data": data, "num_rows": num_rows, "dim": dim, "method": method}
                    if any(case.items() <= row.items() for row in rows):
                        continue
                    row = {**case, **run_row(method, path)}
                    print(json.dumps(row), flush=True)
                    with results.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    rows.append(row)
    if options.write:
        write_tables(rows)
    return None


if __name__ == "__main__":
    main()
