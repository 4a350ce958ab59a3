"""Inner products of queries with groups of base rows: their maxima, and all of a few groups.

The k nearest base rows of a query lie in the k groups of largest maxima, so that of a product of
all pairs nothing but one number per group has to be written: for groups of 32, a thirty-second.
On a CUDA device fused kernels never write the rest; anywhere else torch's products are reduced.
"""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

GROUP = 32
"""Base rows per group."""
LANES = 8
"""Groups that share a tile: row ``i`` of a tile is in its group ``i % LANES``. A thread of a GPU
holds columns of a product that are that far apart, and hence reduces them without any other."""
TILE = GROUP * LANES
_PRODUCTS_AT_ONCE = 2**28
_NUMBERS_AT_ONCE = 2**28
_PARTS = 16


def group_maxima(queries: Tensor, base: Tensor) -> Tensor:
    """Largest product of each query with each group.

    Args:
        queries: ``[num_queries, width]``.
        base: ``[num_base, width]`` of the same type, ``num_base`` a multiple of ``TILE``.

    Returns:
        ``[num_queries, num_base // GROUP]``, in ``float32`` or better; their order is that of
        :func:`places_of_groups`.
    """
    assert len(base) % TILE == 0, "tables are padded to whole tiles"
    if queries.dtype == torch.bfloat16 and _can_fuse(queries):
        from egra_dist.graph.knn.accelerator.fused import fused_group_maxima

        return fused_group_maxima(queries, base)
    high = torch.promote_types(queries.dtype, torch.float32)  # products are not rounded again
    queries = queries.to(high)
    maxima = queries.new_empty(len(queries), len(base) // GROUP, dtype=high)
    step = max(1, _PRODUCTS_AT_ONCE // max(1, len(queries)) // TILE) * TILE
    for start in range(0, len(base), step):
        part = base[start : start + step].to(high)
        products = queries @ part.T
        tiles = products.view(len(queries), products.shape[1] // TILE, GROUP, LANES).amax(2)
        first = start // GROUP
        maxima[:, first : first + tiles.shape[1] * LANES] = tiles.flatten(1)
    return maxima


def group_products(queries: Tensor, base: Tensor, groups: Tensor) -> Tensor:
    """Products of each query with the rows of its own groups.

    Args:
        queries: ``float32 [num_queries, width]``.
        base: ``float32 [num_base, width]``.
        groups: ``int64 [num_queries, num_groups]``.

    Returns:
        ``float32 [num_queries, num_groups * GROUP]``, group by group.
    """
    if _can_fuse(queries):
        from egra_dist.graph.knn.accelerator.fused import fused_group_products

        return fused_group_products(queries, base, groups)
    step = max(1, _NUMBERS_AT_ONCE // max(1, groups.shape[1] * GROUP * base.shape[1]))
    products = [
        torch.bmm(base[places_of_groups(own).flatten(1)], part[:, :, None])[:, :, 0]
        for part, own in zip(queries.split(step), groups.split(step), strict=True)
    ]
    return torch.cat(products)


def _can_fuse(queries: Tensor) -> bool:
    return queries.is_cuda and _can_fuse_on(queries.device)


@cache
def _can_fuse_on(device: torch.device) -> bool:
    """Whether there is Triton, and a GPU that multiplies in bfloat16."""
    has_bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)
    return has_bfloat16 and find_spec("triton") is not None


def places_of_groups(groups: Tensor) -> Tensor:
    """Base rows of groups ``int64 [...]``: ``int64 [..., GROUP]``."""
    first = groups // LANES * TILE + groups % LANES
    return first[..., None] + LANES * torch.arange(GROUP, device=groups.device)


def largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest of each row and their columns, ``[num_rows, count]``, descending.

    Columns are put into groups of sixteen, here too, so that few values are sorted.
    """
    width = values.shape[1]
    if width % _PARTS or width < 2 * _PARTS * count:
        found = values.topk(min(count, width), dim=1)
        return found.values, found.indices
    stride = width // _PARTS
    chosen = largest(values.view(len(values), _PARTS, stride).amax(1), count)[1]
    shifts = stride * torch.arange(_PARTS, device=values.device)
    columns = (chosen[:, :, None] + shifts).flatten(1)
    found = values.gather(1, columns).topk(count, dim=1)
    return found.values, columns.gather(1, found.indices)
