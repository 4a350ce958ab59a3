"""What surrounds a batch in sampled propagation, as tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from egra_dist.model.propagation import SparseMatrix


@dataclass(frozen=True)
class ModalityGraph:
    """How the nodes of a batch gather modalities.

    Attributes:
        items: Per modality which of the looked-up items features travel from,
            ``int64 [num_sources_m]``.
        features: Their rows of ``X_m``, ``[num_sources_m, dim_m]``.
        present: Whether they have the modality, ``bool [num_sources_m]``.
        item_graphs: Sampled ``S_m`` ``[num_gathered_items, num_sources_m]``.
        gather: Users take the mean of gathered items, items are among them:
            ``[num_nodes, num_gathered_items]``.
    """

    items: Mapping[str, Tensor]
    features: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    item_graphs: Mapping[str, SparseMatrix]
    gather: SparseMatrix


@dataclass(frozen=True)
class Subgraph:
    """The sampled neighbourhood of this rank's triplets.

    Attributes:
        rows: Which node is each row of the batch, ``int64 [3 * size]``: users, positives,
            negatives.
        layers: ``P_1 .. P_L``; layer ``l`` is ``[num_nodes_{l-1}, num_nodes_l]``.
        places: Where the nodes of each layer ``0 .. L`` stand among the embeddings looked up.
        modalities: None where no modality is seen.
    """

    rows: Tensor
    layers: Sequence[SparseMatrix]
    places: Sequence[Tensor]
    modalities: ModalityGraph | None

    def mean_of_layers(self, embeddings: Tensor) -> Tensor:
        """Estimates ``mean_{l=0..L} N(A)^l E`` by ``mean_l P_1 .. P_l E``.

        Layers are drawn apart, so that the mean over draws of a product is the product of the
        means. Summed from the outermost layer inwards (Horner).

        Args:
            embeddings: What was looked up, ``[num_inputs, dim]``.

        Returns:
            ``[num_nodes_0, dim]``.
        """
        total = embeddings.index_select(0, self.places[-1])
        for matrix, places in zip(self.layers[::-1], self.places[-2::-1], strict=True):
            total = embeddings.index_select(0, places) + matrix @ total
        return total / len(self.places)
