"""After a training: how much the latest items of users count, chosen on validation."""

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.catalog.catalog import Catalog
from egra_dist.evaluate.split import Split
from egra_dist.graph.csr import Csr
from egra_dist.graph.history import means_of_latest
from egra_dist.graph.partition import NodePartition
from egra_dist.model.tables import ITEM
from egra_dist.train.propagation import Vectors
from egra_dist.train.task import Task, vectors_file
from egra_dist.train.validation import evaluate_rows


@dataclass(frozen=True)
class Tried:
    """A share of the history and what it is worth.

    Attributes:
        share: How much of the final vectors it makes up.
        decay: What an item weighs against the next one.
        score: The validation metric.
    """

    share: float
    decay: float
    score: float


class Histories:
    """Mixes users' final vectors with those of their latest items; collective calls.

    Args:
        task: A training that is done.
        catalog: Who chose what, and when.
        nodes: Who owns which user and item.
        vectors: This rank's rows, as they were trained.
    """

    def __init__(
        self, task: Task, catalog: Catalog, nodes: NodePartition, vectors: Vectors
    ) -> None:
        self._task = task
        self._catalog = catalog
        self._nodes = nodes
        self._vectors = vectors
        self._items: NDArray[np.float32] = np.load(vectors_file(task.folder, ITEM), mmap_mode="r")
        self._split = Split.from_catalog(
            catalog,
            "valid",
            Csr.load(task.graphs.training),
            sliced=False,
            num_users=task.evaluation.num_users,
        )

    def best(self) -> tuple[Tensor, list[Tried]]:
        """Users' vectors ``[num_own_users, dim]`` with the best of all candidates, and the tries.

        Of equally good ones the smaller share counts, then the smaller decay.
        """
        tried: list[Tried] = []
        best, best_users = None, self._vectors.users
        by_decay = sorted(self._task.history.candidates, key=lambda pair: pair[1])
        for decay, pairs in groupby(by_decay, key=lambda pair: pair[1]):
            means = self._means(decay)
            for share, _ in pairs:
                users = torch.lerp(self._vectors.users, means, share)
                tried.append(Tried(share, decay, self._score(users)))
                if best is None or _rank(tried[-1]) > _rank(best):
                    best, best_users = tried[-1], users
        return best_users, sorted(tried, key=_rank, reverse=True)

    def _means(self, decay: float) -> Tensor:
        own = self._nodes.users.block(dist.get_rank())
        means = means_of_latest(self._catalog, own, self._items, decay)
        return torch.as_tensor(means, device=self._vectors.users.device)

    def _score(self, users: Tensor) -> float:
        evaluation = evaluate_rows(
            self._split, users, self._vectors.items, self._nodes, self._task.evaluation
        )
        return evaluation.metrics[self._task.settings.metric]


def _rank(tried: Tried) -> tuple[float, float, float]:
    return tried.score, -tried.share, -tried.decay
