"""Item features, brought to the width of the embeddings."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from egra_dist.errors import UserError


class PerModality(nn.ModuleDict):
    """Modules by modality, whose name may be one that torch's dictionary has itself (``type``)."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__({_own_name(name): module for name, module in modules.items()})

    def __getitem__(self, key: str) -> nn.Module:
        return super().__getitem__(_own_name(key))


def _own_name(modality: str) -> str:
    return f"modality {modality}" if hasattr(nn.ModuleDict, modality) else modality


class Projection(nn.Module):
    """``x'_m = W_m X_m + b_m`` for every modality; zeros where it is missing.

    Args:
        features: Per modality this rank's rows ``[num_own_items, dim_m]``; a row of zeros marks a
            missing modality.
        dim: Width of the result.

    Raises:
        UserError: If there is no modality.
    """

    def __init__(self, features: Mapping[str, Tensor], dim: int) -> None:
        super().__init__()
        if not features:
            raise UserError("this model needs items with at least one modality; there is none")
        self._features = dict(features)
        self._present = {name: (x != 0).any(1, keepdim=True) for name, x in features.items()}
        self.linear = PerModality(
            {name: nn.Linear(values.shape[1], dim) for name, values in features.items()}
        )

    def forward(self) -> dict[str, Tensor]:
        """Every ``x'_m``, ``[num_own_items, dim]``."""
        return {
            name: self.linear[name](values) * self._present[name]
            for name, values in self._features.items()
        }


def with_users(items: Mapping[str, Tensor], num_users: int) -> Tensor:
    """Modalities side by side, ``[num_users + num_items, num_modalities * dim]``; users have none.

    Args:
        items: Per modality ``[num_items, dim]``.
        num_users: Rows of zeros that come first.
    """
    beside = torch.cat(list(items.values()), dim=1)
    return torch.cat([beside.new_zeros(num_users, beside.shape[1]), beside])


def is_there(view: Tensor) -> Tensor:
    """Which rows have the modality: a missing one is projected to zeros.

    Args:
        view: Rows of one modality of :func:`with_users`, ``[num_rows, dim]``.

    Returns:
        ``bool [num_rows]``.
    """
    return (view.detach() != 0).any(1)
