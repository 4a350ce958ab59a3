"""How fast ``mlflow models serve`` answers, and how much of the best the index finds.

    python -m tests.benchmarks.serving http [--items 20000 --users 50000 --requests 1000]
    python -m tests.benchmarks.serving index [--items 20000 200000 1000000 | --run RUN]
    python -m tests.benchmarks.serving lists [--items 20000 --users 50000 --ray]

``http``: one client, one connection, one request after the other; every answer is compared with a
full sort in float64. ``index``: recall@20 against exact for users drawn like the items, seconds to
build it, and milliseconds of a search on one thread. ``lists``: users per second of batch
inference. Vectors are of low rank with lengths that vary, or those of a run.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

from egra_dist.config import ClusterSettings, ExportSettings
from egra_dist.serve.batch import write_lists
from egra_dist.serve.index import write_index
from tests.exported import export_at_random
from tests.served import serving

DIM, RANK = 64, 24


def low_rank(num_rows: int, seed: int) -> np.ndarray:
    """Rows that share their directions, with lengths as popularity gives them."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((RANK, DIM)) / RANK**0.5
    lengths = random.lognormal(0, 0.3, (num_rows, 1))
    noise = 0.2 * random.standard_normal((num_rows, DIM))
    return ((random.standard_normal((num_rows, RANK)) @ mixing + noise) * lengths).astype(
        np.float32
    )


def measure_http(arguments: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = export_at_random(folder, arguments.users, arguments.items[0], DIM, history=20)
        seen = made.seen()
        random = np.random.default_rng(1)
        asked = random.integers(0, arguments.users, arguments.requests)
        milliseconds, wrong = [], 0
        started = time.perf_counter()
        with serving(made.model, folder / "server.log") as client:
            seconds_to_start = time.perf_counter() - started
            client.ask({"user_id": "u0"})
            for user in asked:
                before = time.perf_counter()
                (answer,) = client.ask({"user_id": f"u{user}"}, k=20)
                milliseconds.append(1000 * (time.perf_counter() - before))
                expected = made.ranking(made.users[user], seen[user], 20)
                wrong += answer["items"] != [item for item, _ in expected]
        return {
            "seconds_to_start": round(seconds_to_start, 1),
            "median_ms": round(float(np.median(milliseconds)), 2),
            "p95_ms": round(float(np.percentile(milliseconds, 95)), 2),
            "max_ms": round(max(milliseconds), 2),
            "answers_other_than_exact": wrong,
            "requests": len(milliseconds),
        }


def measure_index(arguments: argparse.Namespace) -> dict:
    measured = {}
    for num_items in arguments.items:
        if arguments.run:
            (folder,) = arguments.run.glob("artifacts/train-*")
            users, items = (np.load(folder / f"{name}_vectors.npy") for name in ("user", "item"))
        else:
            users, items = low_rank(20_000, 1), low_rank(num_items, 2)
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "index.faiss"
            before = resource.getrusage(resource.RUSAGE_SELF)
            settings = ExportSettings(index=arguments.kind)
            facts = write_index(users, items, settings, arguments.seed, path)
            after = resource.getrusage(resource.RUSAGE_SELF)
            index = faiss.read_index(str(path))
            faiss.omp_set_num_threads(1)
            started = time.perf_counter()
            for query in users[:200]:
                index.search(query[None], 64)
            facts["search_ms"] = round((time.perf_counter() - started) / 0.2, 3)
            facts["build_cpu_seconds"] = round(after.ru_utime - before.ru_utime, 1)
            measured[len(items)] = facts
    return measured


def measure_lists(arguments: argparse.Namespace) -> dict:
    from egra_dist.cluster.session import ray_session
    from egra_dist.cluster.tasks import ray_map

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = export_at_random(folder, arguments.users, arguments.items[0], DIM, history=20)
        (folder / "lists").mkdir()
        lists = (made.data, "", arguments.users, 50, folder / "lists")
        if not arguments.ray:
            started = time.perf_counter()
            write_lists(*lists)
            return {"users_per_second": round(arguments.users / (time.perf_counter() - started))}
        with ray_session(ClusterSettings(num_workers=2)):
            started = time.perf_counter()
            write_lists(*lists, ray_map)
            return {"users_per_second": round(arguments.users / (time.perf_counter() - started))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["http", "index", "lists"])
    parser.add_argument("--items", type=int, nargs="+", default=[20_000])
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--kind", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--ray", action="store_true")
    arguments = parser.parse_args()
    measure = {"http": measure_http, "index": measure_index, "lists": measure_lists}
    print(json.dumps(measure[arguments.what](arguments), indent=2))


if __name__ == "__main__":
    main()
