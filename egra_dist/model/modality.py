"""The modality branch: item features, purified by behaviour and fused per entity.

The branch of MGCN (Yu et al. 2023), as METHOD's stage 1 gives it, for any number of modalities.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from egra_dist.model.propagation import PartitionedMatrix


class ModalityBranch(nn.Module):
    """Turns item features into a modality representation ``Side`` of every user and item.

    Args:
        features: Per modality this rank's rows ``[num_own_items, dim_m]``.
        present: Per modality which of them are there, ``bool [num_own_items]``.
        item_graphs: Per modality ``S_m``, the normalised kNN graph over its features.
        user_rows: ``N(A)[:U, U:]``, how users gather from items.
        dim: Width of all representations.
    """

    def __init__(
        self,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        item_graphs: Mapping[str, PartitionedMatrix],
        user_rows: PartitionedMatrix,
        dim: int,
    ) -> None:
        super().__init__()
        self._features = dict(features)
        self._present = {name: mask[:, None].to(torch.float32) for name, mask in present.items()}
        self._item_graphs = dict(item_graphs)
        self._user_rows = user_rows
        names = list(features)
        self.project = _per_modality({m: nn.Linear(features[m].shape[1], dim) for m in names})
        self.purify = _per_modality({m: nn.Linear(dim, dim) for m in names})
        self.gate = _per_modality({m: nn.Linear(dim, dim) for m in names})
        self.query = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))

    def propagate(self, item_embeddings: Tensor) -> Tensor:
        """``P_m = [N(A)[:U, U:] I_m; I_m]`` with ``I_m = S_m e_m`` for every modality.

        Args:
            item_embeddings: ``E_i``, this rank's rows ``[num_own_items, dim]``.

        Returns:
            ``[num_own_nodes, num_modalities * dim]``, own users first.
        """
        items = torch.cat(
            [self._item_graphs[m] @ self._purified(m, item_embeddings) for m in self._features],
            dim=1,
        )
        return torch.cat([self._user_rows @ items, items])

    def _purified(self, modality: str, item_embeddings: Tensor) -> Tensor:
        projected = self.project[modality](self._features[modality])
        gate = torch.sigmoid(self.purify[modality](projected))
        return item_embeddings * gate * self._present[modality]

    @property
    def num_modalities(self) -> int:
        """How many modalities are fused."""
        return len(self._features)

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
        num_modalities = self.num_modalities
        dim = propagated.shape[1] // num_modalities
        views = propagated.view(len(propagated), num_modalities, dim)
        if kept is not None:
            views = views * kept[:, :, None]
        is_there = views.detach().abs().amax(2) > 0
        logits = self.query(views).squeeze(2).masked_fill(~is_there, torch.finfo(views.dtype).min)
        common = (torch.softmax(logits, dim=1)[:, :, None] * views).sum(1)
        gates = torch.stack([self.gate[m](behavior) for m in self._features], dim=1)
        specific = torch.sigmoid(gates) * (views - common[:, None]) * is_there[:, :, None]
        return (specific.sum(1) + common) / (num_modalities + 1)


def _per_modality(modules: Mapping[str, nn.Module]) -> nn.ModuleDict:
    return nn.ModuleDict(dict(modules))
