"""How fast full ranking is, on one thread, against matrix product, mask and top-k.

    python -m tests.benchmarks.ranking [--items 19220 --users 50000 | --data FOLDER/microlens50k]

Vectors are random, or the truncated SVD of real training interactions (of which recall is
realistic, so that fewer positives are dropped early). CPU seconds, of the fastest call.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.linalg import svds

from egra_dist.config import EvaluationSettings
from egra_dist.evaluate.protocol import evaluate_vectors
from egra_dist.evaluate.slices import standard_slices
from egra_dist.evaluate.split import HeldOut, Split
from egra_dist.graph.csr import Csr

SETTINGS = EvaluationSettings()


def random_case(num_users, num_items, dim, history=5, positives=1):
    """Vectors and interactions without any relation."""
    random = np.random.default_rng(0)
    items = random.integers(0, num_items, (num_users, history))
    indptr = np.arange(num_users + 1) * history
    training = Csr(indptr, np.sort(items, 1).ravel().astype(np.int32), None, num_items)
    wanted = np.repeat(np.arange(num_users), positives)
    held_out = HeldOut.from_interactions(
        wanted, random.integers(0, num_items, len(wanted)), num_items
    )
    vectors = random.standard_normal((num_users + num_items, dim), dtype=np.float32)
    return (
        Split(held_out, training),
        torch.from_numpy(vectors[:num_users]),
        torch.from_numpy(vectors[num_users:]),
    )


def real_case(folder, dim):
    """An MMRec folder: the test split and an SVD of the training matrix, items shuffled."""
    table = np.loadtxt(
        folder / f"{folder.name}.inter", skiprows=1, usecols=(0, 1, 2), dtype=np.int64
    )
    users, items, label = table.T
    num_users, num_items = users.max() + 1, items.max() + 1
    items = np.random.default_rng(0).permutation(num_items)[items]
    train = label == 0
    ones = np.ones(train.sum(), dtype=np.float32)
    matrix = scipy.sparse.csr_array((ones, (users[train], items[train])), (num_users, num_items))
    matrix.sort_indices()
    left, values, right = svds(matrix, dim, random_state=0)
    training = Csr(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), None, num_items)
    test = label == 2
    split = Split(HeldOut.from_interactions(users[test], items[test], num_items), training)
    vectors = (torch.from_numpy(np.ascontiguousarray(v)) for v in (left * values, right.T))
    return split, *vectors


def plain(split, user_vectors, item_vectors, batch=4096, k=50):
    """What toolkits do: score all items of a batch, mask, top-k, look the positives up."""
    users = np.unique(split.held_out.users)
    scores_of = scipy.sparse.csr_array(
        (np.ones(split.training.num_entries, bool), split.training.indices, split.training.indptr),
        (split.training.num_rows, split.training.num_columns),
    )
    positives = [set() for _ in range(split.training.num_rows)]
    for user, item in zip(split.held_out.users, split.held_out.items, strict=True):
        positives[user].add(item)
    recall = []
    for begin in range(0, len(users), batch):
        part = users[begin : begin + batch]
        scores = user_vectors[part] @ item_vectors.T
        scores[tuple(map(torch.from_numpy, map(np.int64, scores_of[part].nonzero())))] = -1e10
        top = scores.topk(k).indices.numpy()
        hits = np.array(
            [[i in positives[u] for i in row] for u, row in zip(part, top, strict=True)]
        )
        recall.append(hits[:, :20].sum(1) / [len(positives[u]) for u in part])
    return float(np.concatenate(recall).mean())


def measure(function, repeats):
    """CPU seconds of the fastest call, and its result."""
    seconds, result = [], None
    for _ in range(repeats):
        begin = time.process_time()
        result = function()
        seconds.append(time.process_time() - begin)
    return min(seconds), result


def run(arguments):
    """Figures of one case."""
    if arguments.data:
        split, users, items = real_case(arguments.data, arguments.dim)
    else:
        split, users, items = random_case(
            arguments.users, arguments.items, arguments.dim, arguments.history
        )
    num_users = len(np.unique(split.held_out.users))
    figures = {"num_users": num_users, "num_items": len(items), "dim": arguments.dim}
    figures["num_interactions"] = split.training.num_entries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, result = measure(
        lambda: evaluate_vectors(split, users, items, SETTINGS), arguments.repeats
    )
    figures["more_peak_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    figures |= {"cpu_seconds": seconds, "users_per_second": num_users / seconds}
    figures["recall_at_20"] = result.metrics["recall_at_20"]
    counts = np.bincount(split.training.indices, minlength=len(items))
    slices = standard_slices(counts, np.diff(split.training.indptr))
    sliced = Split(split.held_out, split.training, None, slices)
    figures["cpu_seconds_with_slices"] = measure(
        lambda: evaluate_vectors(sliced, users, items, SETTINGS), arguments.repeats
    )[0]
    if arguments.plain:
        seconds, recall = measure(lambda: plain(split, users, items), 1)
        figures |= {"plain_cpu_seconds": seconds, "plain_recall_at_20": recall}
    return figures


def main():
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--items", type=int, default=19_220)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--history", type=int, default=5, help="training interactions of a user")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="measure the usual way as well")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps(run(arguments), indent=2))


if __name__ == "__main__":
    main()
