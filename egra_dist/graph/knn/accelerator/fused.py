"""Products and what remains of them in one kernel, for GPUs that Triton compiles for."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from egra_dist.graph.knn.accelerator.groups import GROUP, LANES, TILE

_QUERIES = 128
_WARPS = 4
_WIDEST_SLICE = 64


def fused_group_maxima(queries: Tensor, base: Tensor) -> Tensor:
    """As :func:`~egra_dist.graph.knn.accelerator.groups.group_maxima`, for bfloat16 on a GPU."""
    queries, base = queries.contiguous(), base.contiguous()
    num_groups = len(base) // GROUP
    maxima = torch.empty(len(queries), num_groups, dtype=torch.float32, device=queries.device)
    grid = (triton.cdiv(len(queries), _QUERIES), len(base) // TILE)
    if not maxima.numel():
        return maxima
    width = queries.shape[1]
    slices = min(_WIDEST_SLICE, max(16, triton.next_power_of_2(width)))
    _maxima_of_tile[grid](
        queries, base, maxima, len(queries), num_groups,
        WIDTH=width, SLICE=slices, QUERIES=_QUERIES, GROUP=GROUP, LANES=LANES,
        num_warps=_WARPS,
    )  # fmt: skip
    return maxima


def fused_group_products(queries: Tensor, base: Tensor, groups: Tensor) -> Tensor:
    """As :func:`~egra_dist.graph.knn.accelerator.groups.group_products`, on a GPU."""
    queries, base, groups = queries.contiguous(), base.contiguous(), groups.contiguous()
    products = torch.empty(len(queries), groups.shape[1] * GROUP, device=queries.device)
    if products.numel():
        _products_of_group[(len(queries), groups.shape[1])](
            queries, base, groups, products,
            WIDTH=queries.shape[1], SLICE=_WIDEST_SLICE, GROUP=GROUP, LANES=LANES, num_warps=1,
        )  # fmt: skip
    return products


@triton.jit(do_not_specialize=["num_queries", "num_groups"])  # type: ignore[untyped-decorator]
def _maxima_of_tile(  # type: ignore[no-untyped-def]  # noqa: ANN202
    queries,  # noqa: ANN001
    base,  # noqa: ANN001
    maxima,  # noqa: ANN001
    num_queries,  # noqa: ANN001
    num_groups,  # noqa: ANN001
    WIDTH: tl.constexpr,  # noqa: N803
    SLICE: tl.constexpr,  # noqa: N803
    QUERIES: tl.constexpr,  # noqa: N803
    GROUP: tl.constexpr,  # noqa: N803
    LANES: tl.constexpr,  # noqa: N803
):
    """One block of queries against one tile of base rows."""
    row = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    tile = tl.program_id(1).to(tl.int64)
    column = tile * GROUP * LANES + tl.arange(0, GROUP * LANES)
    products = tl.zeros((QUERIES, GROUP * LANES), tl.float32)
    for start in range(0, WIDTH, SLICE):
        part = start + tl.arange(0, SLICE)
        one = tl.load(
            queries + row.to(tl.int64)[:, None] * WIDTH + part[None, :],
            mask=(row[:, None] < num_queries) & (part[None, :] < WIDTH),
            other=0.0,
        )
        other = tl.load(
            base + column[None, :] * WIDTH + part[:, None], mask=part[:, None] < WIDTH, other=0.0
        )
        products = tl.dot(one, other, products)
    best = tl.max(tl.reshape(products, (QUERIES, GROUP, LANES)), axis=1)
    target = row.to(tl.int64)[:, None] * num_groups + tile * LANES + tl.arange(0, LANES)[None, :]
    tl.store(maxima + target, best, mask=row[:, None] < num_queries)


@triton.jit  # type: ignore[untyped-decorator]
def _products_of_group(  # type: ignore[no-untyped-def]  # noqa: ANN202
    queries,  # noqa: ANN001
    base,  # noqa: ANN001
    groups,  # noqa: ANN001
    products,  # noqa: ANN001
    WIDTH: tl.constexpr,  # noqa: N803
    SLICE: tl.constexpr,  # noqa: N803
    GROUP: tl.constexpr,  # noqa: N803
    LANES: tl.constexpr,  # noqa: N803
):
    """One query against the rows of one of its groups."""
    query = tl.program_id(0).to(tl.int64)
    entry = query * tl.num_programs(1) + tl.program_id(1)
    group = tl.load(groups + entry)
    row = group // LANES * (GROUP * LANES) + group % LANES + LANES * tl.arange(0, GROUP)
    total = tl.zeros((GROUP,), tl.float32)
    for start in range(0, WIDTH, SLICE):
        part = start + tl.arange(0, SLICE)
        one = tl.load(queries + query * WIDTH + part, mask=part < WIDTH, other=0.0)
        others = tl.load(
            base + row[:, None] * WIDTH + part[None, :], mask=part[None, :] < WIDTH, other=0.0
        )
        total += tl.sum(others * one[None, :], axis=1)
    tl.store(products + entry * GROUP + tl.arange(0, GROUP), total)
