"""What surrounds a batch in sampled propagation, as tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from egra_dist.model.sparse import SparseMatrix


@dataclass(frozen=True)
class ModalityGraph:
    """How the nodes of a batch gather modalities.

    Attributes:
        features: Per modality the rows of ``X_m`` that travel, ``[num_sources_m, dim_m]``.
        item_graphs: Sampled ``S_m`` ``[num_gathered_items, num_sources_m]``; sources without the
            modality weigh nothing.
        gather: Users take the mean of gathered items, items are among them:
            ``[num_nodes, num_gathered_items]``.
    """

    features: Mapping[str, Tensor]
    item_graphs: Mapping[str, SparseMatrix]
    gather: SparseMatrix


@dataclass(frozen=True)
class Subgraph:
    """The sampled neighbourhood of this rank's triplets.

    Embeddings are read by one product, and their gradient is written by one with its transpose:
    every other way passes over all of them once for each place that reads some.

    Attributes:
        rows: Which node is each row of the batch, ``int64 [3 * size]``: users, positives,
            negatives.
        reads: ``[num_read, num_inputs]``, see :meth:`Neighborhood.reads`.
        sizes: How many of its rows belong to each layer ``0 .. L - 1``, then to each modality.
        layers: ``P_1 .. P_{L-1}``; layer ``l`` is ``[num_nodes_{l-1}, num_nodes_l]``.
        num_layers: ``L``.
        modalities: None where no modality is seen.
    """

    rows: Tensor
    reads: SparseMatrix
    sizes: Sequence[int]
    layers: Sequence[SparseMatrix]
    num_layers: int
    modalities: ModalityGraph | None

    def read(self, embeddings: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """What layers and modalities need of the embeddings that were looked up.

        Args:
            embeddings: ``[num_inputs, dim]``.

        Returns:
            Of each layer, for :meth:`mean_of_layers`; of each modality the sources' embeddings.
        """
        parts = (self.reads @ embeddings).split(list(self.sizes))
        features = self.modalities.features if self.modalities else {}
        num_layers = len(parts) - len(features)
        return list(parts[:num_layers]), dict(zip(features, parts[num_layers:], strict=True))

    def mean_of_layers(self, parts: Sequence[Tensor]) -> Tensor:
        """Estimates ``mean_{l=0..L} N(A)^l E`` by ``mean_l P_1 .. P_l E``.

        Layers are drawn apart, so that the mean over draws of a product is the product of the
        means. Summed from the outermost layer inwards (Horner).

        Args:
            parts: Of each layer ``0 .. L - 1`` its nodes' embeddings ``[num_nodes_l, dim]``; those
                of the last with ``P_L E`` added.

        Returns:
            ``[num_nodes_0, dim]``.
        """
        total = parts[-1]
        for matrix, part in zip(self.layers[::-1], parts[-2::-1], strict=True):
            total = part + matrix @ total
        return total / (self.num_layers + 1)
