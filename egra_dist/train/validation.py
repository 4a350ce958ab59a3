"""Full ranking on the ranks that train, and how well the representations are aligned."""

import torch
from torch import Tensor

from egra_dist.catalog.catalog import Catalog
from egra_dist.config import EvaluationSettings, TrainingSettings
from egra_dist.evaluate.protocol import evaluate_partitioned, evaluate_vectors
from egra_dist.evaluate.report import Evaluation
from egra_dist.evaluate.split import Split
from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import NodePartition
from egra_dist.model.alignment import entity_weights
from egra_dist.model.exchange import rank, world_size
from egra_dist.model.gather import gather_rows
from egra_dist.tracking.summary import quantiles
from egra_dist.train.propagation import Vectors

_MAX_SAMPLE = 20_000


class Validator:
    """Evaluates a training on the validation split; a collective call.

    Args:
        catalog: What is evaluated on.
        training: ``R``; these items are not ranked.
        nodes: Who owns which user and item.
        settings: The training, for its alignment settings.
        evaluation: How to evaluate.
    """

    def __init__(
        self,
        catalog: Catalog,
        training: Csr,
        nodes: NodePartition,
        settings: TrainingSettings,
        evaluation: EvaluationSettings,
    ) -> None:
        self._split = Split.from_catalog(
            catalog, "valid", training, sliced=False, num_users=evaluation.num_users
        )
        self._nodes = nodes
        self._settings = settings
        self._evaluation = evaluation

    def __call__(self, vectors: Vectors) -> dict[str, float]:
        """Metrics ``valid/...`` and, of a model with modalities, statistics ``alignment/...``."""
        evaluation = evaluate_rows(
            self._split, vectors.users, vectors.items, self._nodes, self._evaluation
        )
        metrics = {f"valid/{name}": value for name, value in evaluation.metrics.items()}
        if self._evaluation.num_users is not None:
            margins = evaluation.margins.items()
            metrics |= {f"valid/{name}_margin": value for name, value in margins}
        return metrics | self._alignment_statistics(vectors)

    def _alignment_statistics(self, vectors: Vectors) -> dict[str, float]:
        if vectors.degrees is None:
            return {}
        statistics: dict[str, float] = {}
        for name, own in zip(("user", "item"), vectors.degrees, strict=True):
            sample = _gather_sample(own)
            weights = entity_weights(sample, self._settings.alignment)
            statistics |= quantiles(sample, f"alignment/{name}_degree")
            statistics |= quantiles(weights, f"alignment/{name}_weight")
        return statistics


def _gather_sample(own: Tensor) -> Tensor:
    """Values of all ranks, evenly thinned out where there are many."""
    sample = own[:: max(1, len(own) * world_size() // _MAX_SAMPLE)]
    if world_size() == 1:
        return sample
    sizes = torch.zeros(world_size(), dtype=torch.int64, device=own.device)
    sizes[rank()] = len(sample)
    torch.distributed.all_reduce(sizes)
    return gather_rows(sample[:, None], sizes.tolist())[:, 0]


def evaluate_rows(
    split: Split,
    users: Tensor,
    items: Tensor,
    nodes: NodePartition,
    evaluation: EvaluationSettings,
) -> Evaluation:
    """Evaluates this rank's rows ``[num_own_users, dim]`` and ``[num_own_items, dim]``."""
    if world_size() == 1:
        return evaluate_vectors(split, users, items, evaluation, users.device)
    return evaluate_partitioned(split, users, items, nodes.users, nodes.items, evaluation)
