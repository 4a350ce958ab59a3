"""The modality branch: item features, purified by behaviour and fused per entity.

The branch of MGCN (Yu et al. 2023), as METHOD's stage 1 gives it, for any number of modalities.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from egra_dist.model.features import PerModality
from egra_dist.model.fusion import fuse
from egra_dist.model.gated import gated_product
from egra_dist.model.propagation import PartitionedMatrix
from egra_dist.model.selected import Selection
from egra_dist.model.subgraph import ModalityGraph


@dataclass(frozen=True)
class WholeModalityGraph:
    """How all nodes gather modalities; this rank's rows.

    Attributes:
        features: Per modality ``[num_own_items, dim_m]``.
        present: Per modality which of them are there, ``bool [num_own_items]``.
        item_graphs: Per modality ``S_m``, the normalised kNN graph over its features.
        user_rows: ``N(A)[:U, U:]``, how users gather from items.
    """

    features: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    item_graphs: Mapping[str, PartitionedMatrix]
    user_rows: PartitionedMatrix

    @cached_property
    def missing(self) -> Mapping[str, Tensor]:
        """Per modality which of them lack it, ``int64 [num_missing]``."""
        return {m: (~present).nonzero()[:, 0] for m, present in self.present.items()}


class ModalityBranch(nn.Module):
    """Turns item features into a modality representation ``Side`` of every user and item.

    Args:
        widths: Columns of each modality's features.
        dim: Width of all representations.
        graph: What exact propagation runs over; None where only samples are.
        dtype: Type of the products with features and weights; sums and what is between stay
            float32.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        dim: int,
        graph: WholeModalityGraph | None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._dtype = dtype
        self.names = tuple(widths)
        self._graph = graph
        self.project = PerModality({m: nn.Linear(widths[m], dim) for m in self.names})
        self.purify = PerModality({m: nn.Linear(dim, dim) for m in self.names})
        self.gate = PerModality({m: nn.Linear(dim, dim) for m in self.names})
        self.query = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))

    def propagate(
        self,
        item_embeddings: Tensor,
        users: Selection | None = None,
        items: Selection | None = None,
    ) -> Tensor:
        """``P_m = [N(A)[:U, U:] I_m; I_m]`` with ``I_m = S_m e_m`` for every modality.

        Args:
            item_embeddings: ``E_i``, this rank's rows ``[num_own_items, dim]``.
            users: The users of all ranks that are wanted; all nodes when None.
            items: The items, likewise.

        Returns:
            Own rows ``[num_users + num_items, num_modalities * dim]``, users first.
        """
        graph = self._graph
        assert graph is not None, "built for sampled propagation alone"
        gathered = [
            gated_product(
                graph.item_graphs[m],
                item_embeddings,
                self._logits(m, graph.features[m]),
                graph.missing[m],
            )
            for m in self.names
        ]
        if users is not None and items is not None:
            return graph.user_rows.at(users, items.own).beside(gathered)
        of_items = torch.cat(gathered, dim=1)
        return torch.cat([graph.user_rows @ of_items, of_items])

    def propagate_sample(self, sources: Mapping[str, Tensor], graph: ModalityGraph) -> Tensor:
        """The same for the nodes of a batch.

        Args:
            sources: Per modality the embeddings of the items that it travels from,
                ``[num_sources_m, dim]``.
            graph: How it travels.

        Returns:
            ``[num_nodes, num_modalities * dim]``.
        """
        gathered = [
            graph.item_graphs[m] @ (sources[m] * self._gates(m, graph.features[m]))
            for m in self.names
        ]
        return graph.gather @ torch.cat(gathered, dim=1)

    def purified(
        self, modality: str, item_embeddings: Tensor, features: Tensor, present: Tensor
    ) -> Tensor:
        """``e_m = E_i * sigmoid(V_m (W_m X_m + b_m) + c_m)`` of some items, 0 where missing.

        Args:
            modality: Whose features they are.
            item_embeddings: ``[num_items, dim]``.
            features: ``[num_items, dim_m]``.
            present: ``bool [num_items]``.
        """
        return item_embeddings * self._gates(modality, features) * present[:, None]

    def _gates(self, modality: str, features: Tensor) -> Tensor:
        return torch.sigmoid(self._logits(modality, features))

    def _logits(self, modality: str, features: Tensor) -> Tensor:
        """``V_m (W_m X_m + b_m) + c_m``, both maps made one first.

        Also of few rows, where that takes longer: how many a rank has must not change how numbers
        are rounded.
        """
        project = cast("nn.Linear", self.project[modality])
        purify = cast("nn.Linear", self.purify[modality])
        kept = project.weight.dtype
        weight = purify.weight @ project.weight
        dtype = self._dtype or kept
        logits = functional.linear(features.to(dtype), weight.to(dtype)).to(kept)
        return logits.add_(purify(project.bias))

    @property
    def num_modalities(self) -> int:
        """How many modalities are fused."""
        return len(self.names)

    def fuse(self, propagated: Tensor, behavior: Tensor, kept: Tensor | None = None) -> Tensor:
        """``Side = (sum_m sigmoid(G_m H) * (P_m - C) + C) / (M + 1)``, row by row.

        ``C = sum_m att_m P_m`` with attention over the modalities. A modality that reached a row
        from nowhere (``P_m = 0``: it is missing there, and for all neighbours) gets no attention.

        Args:
            propagated: Rows of :meth:`propagate`, ``[num_rows, num_modalities * dim]``.
            behavior: The same rows of ``H``, ``[num_rows, dim]``.
            kept: ``bool [num_rows, num_modalities]``: what is not dropped; all when None.

        Returns:
            ``[num_rows, dim]``.
        """
        views = self._views(propagated)
        if kept is not None:
            views = views * kept[:, :, None]
        query, _, out = cast("list[nn.Linear]", list(self.query))
        gates = [cast("nn.Linear", self.gate[m]) for m in self.names]
        return fuse(views, behavior, query, out, gates, self._dtype or views.dtype)

    def shares(self, propagated: Tensor, behavior: Tensor) -> Tensor:
        """What each modality adds to ``Side``: :meth:`fuse` is their sum.

        With ``s_m = sigmoid(G_m H)``, ``Side`` is ``sum_m (s_m + att_m (1 - sum_n s_n)) P_m / (M +
        1)``: once gates and attention are given, it is linear in the modalities.

        Args:
            propagated: Rows of :meth:`propagate`, ``[num_rows, num_modalities * dim]``.
            behavior: The same rows of ``H``, ``[num_rows, dim]``.

        Returns:
            ``[num_rows, num_modalities, dim]``.
        """
        views = self._views(propagated)
        is_there, attention, gates = self._weights(views, behavior)
        gates = gates * is_there[:, :, None]
        weights = gates + attention[:, :, None] * (1 - gates.sum(1, keepdim=True))
        return weights * views / (self.num_modalities + 1)

    def _views(self, propagated: Tensor) -> Tensor:
        dim = propagated.shape[1] // self.num_modalities
        return propagated.view(len(propagated), self.num_modalities, dim)

    def _weights(self, views: Tensor, behavior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which modalities are there, attention over them, and the gates of each."""
        is_there = views.detach().abs().amax(2) > 0
        logits = self.query(views).squeeze(2).masked_fill(~is_there, torch.finfo(views.dtype).min)
        gates = torch.stack([self.gate[m](behavior) for m in self.names], dim=1)
        return is_there, torch.softmax(logits, dim=1), torch.sigmoid(gates)
