"""Nearest neighbours of queries in a table, by the maxima of groups.

Products, rounded to bfloat16, only say which groups are looked at; the rows of these are scored in
float32, and the k best of them are neighbours. Where all groups were candidates, the result is
proved: no row outside of the groups chosen can score more than the least of their maxima and the
error of rounding. The few queries for which that is not enough look at more groups, and the last
of them at products in float32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from egra_dist.graph.knn.accelerator.groups import (
    GROUP,
    group_maxima,
    group_products,
    largest,
    places_of_groups,
)
from egra_dist.graph.knn.accelerator.table import Table

_SPARE_GROUPS = 6
_SPARE_GROUPS_OF_LISTS = 2
_SPARE_ROWS = 4
_MAXIMA_AT_ONCE = 2**29
_NUMBERS_AT_ONCE = 2**28
_VISITS_AT_ONCE = 2**24


@dataclass(frozen=True)
class Queries:
    """Who looks for neighbours.

    Attributes:
        rows: ``float32 [num_queries, dim]`` prepared rows.
        ids: ``int64 [num_queries]`` their prepared rows, which are no neighbours of themselves.
    """

    rows: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice | Tensor) -> "Queries":
        return Queries(self.rows[part], self.ids[part])


@dataclass(frozen=True)
class Nearest:
    """What was found.

    Attributes:
        ids: ``int64 [num_queries, k]`` prepared rows, best first, ties by lower id; -1 for none.
        scores: ``float32 [num_queries, k]``; ``-inf`` for none.
    """

    ids: Tensor
    scores: Tensor


def search_all(table: Table, queries: Queries, k: int) -> Nearest:
    """Neighbours among all rows, exactly."""
    found = Nearest(
        queries.ids.new_full((len(queries), k), -1),
        queries.rows.new_full((len(queries), k), -torch.inf),
    )
    step = max(1, _MAXIMA_AT_ONCE // (len(table.ids) // GROUP))
    for block in torch.arange(len(queries), device=queries.ids.device).split(step):
        num_groups, is_rounded = k + _SPARE_GROUPS, True
        while len(block):
            part, is_proved = _search_block(table, queries[block], k, num_groups, is_rounded)
            found.ids[block], found.scores[block] = part.ids, part.scores
            block = block[~is_proved]
            num_groups, is_rounded = num_groups * 4, num_groups == k + _SPARE_GROUPS
    return found


def _search_block(
    table: Table, queries: Queries, k: int, num_groups: int, is_rounded: bool
) -> tuple[Nearest, Tensor]:
    """Neighbours, and for which queries they are proved."""
    form = table.queries(queries.rows)
    base = table.rounded if is_rounded else table.base
    maxima, groups = largest(group_maxima(form.to(base.dtype), base), num_groups)
    found = best_of_groups(table, queries, groups, k)
    if groups.shape[1] == len(table.ids) // GROUP:
        return found, torch.ones_like(queries.ids, dtype=torch.bool)
    worst = table.as_products(found.scores[:, -1], queries.rows)
    return found, worst >= maxima[:, -1] + table.errors(form, is_rounded)


def search_lists(table: Table, queries: Queries, k: int, num_probes: int) -> Nearest:
    """Neighbours among the rows of the nearest lists."""
    num_probes = min(num_probes, len(table.centroids))
    parts = [
        _search_lists(table, queries[start : start + step], k, num_probes)
        for step in [max(1, _VISITS_AT_ONCE // num_probes)]
        for start in range(0, len(queries), step)
    ]
    return Nearest(torch.cat([p.ids for p in parts]), torch.cat([p.scores for p in parts]))


def _search_lists(table: Table, queries: Queries, k: int, num_probes: int) -> Nearest:
    num_groups = k + _SPARE_GROUPS_OF_LISTS
    rounded = table.queries(queries.rows).bfloat16()
    lists = table.nearest_lists(queries.rows, num_probes).flatten()
    maxima = queries.rows.new_full((len(lists), num_groups), -torch.inf)
    groups = torch.zeros_like(maxima, dtype=torch.int32)
    counts = lists.bincount(minlength=len(table.centroids)).tolist()
    visits = lists.argsort(stable=True).split(counts)
    for number, visiting in enumerate(visits):
        first, last = table.starts[number : number + 2]
        if first == last or not len(visiting):
            continue
        for visit in visiting.split(max(1, _MAXIMA_AT_ONCE // ((last - first) // GROUP))):
            found = group_maxima(rounded[visit // num_probes], table.rounded[first:last])
            values, places = largest(found, num_groups)
            maxima[visit, : values.shape[1]] = values
            groups[visit, : values.shape[1]] = (places + first // GROUP).int()
    best = maxima.view(len(queries), -1).topk(num_groups, dim=1)
    chosen = groups.view(len(queries), -1).gather(1, best.indices).long()
    return best_of_groups(table, queries, chosen, k, best.values > -torch.inf)


def best_of_groups(
    table: Table, queries: Queries, groups: Tensor, k: int, exists: Tensor | None = None
) -> Nearest:
    """The best rows of some groups, by scores in float32.

    Args:
        table: Where they are.
        queries: Who looks for neighbours.
        groups: ``int64 [num_queries, num_groups]``.
        k: Neighbours per query.
        exists: ``bool [num_queries, num_groups]`` which of the groups count; all when None.
    """
    ids, scores = [], []
    step = max(1, _NUMBERS_AT_ONCE // (groups.shape[1] * GROUP))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        there = None if exists is None else exists[part]
        found = _best_of_block(table, queries[part], groups[part], k, there)
        ids.append(found.ids)
        scores.append(found.scores)
    return Nearest(torch.cat(ids), torch.cat(scores))


def _best_of_block(
    table: Table, queries: Queries, groups: Tensor, k: int, exists: Tensor | None
) -> Nearest:
    places = places_of_groups(groups).flatten(1)
    ids = table.ids[places]
    form = table.queries(queries.rows)
    products = group_products(form, table.base, groups)
    products.masked_fill_((ids < 0) | (ids == queries.ids[:, None]), -torch.inf)
    if exists is not None:
        products.masked_fill_(~exists.repeat_interleave(GROUP, dim=1), -torch.inf)
    best = products.topk(min(products.shape[1], k + _SPARE_ROWS), dim=1)
    scores = _scores(table, queries.rows, places.gather(1, best.indices))
    scores.masked_fill_(best.values == -torch.inf, -torch.inf)
    return _sorted(ids.gather(1, best.indices), scores, k)


def _scores(table: Table, rows: Tensor, places: Tensor) -> Tensor:
    """Scores that depend on nothing but two rows: see :mod:`egra_dist.graph.knn.scoring`."""
    others = table.rows[places]
    if table.metric == "l2":
        return others.sub_(rows[:, None]).square_().sum(2).neg_()
    return others.mul_(rows[:, None]).sum(2)


def _sorted(ids: Tensor, scores: Tensor, k: int) -> Nearest:
    """The ``k`` best, ties by lower id; -1 and ``-inf`` where there are fewer."""
    missing = max(0, k - ids.shape[1])
    ids = torch.nn.functional.pad(ids, (0, missing), value=-1)
    scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
    ids, order = ids.sort(dim=1)
    scores, by_score = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    ids = ids.gather(1, by_score).masked_fill(scores == -torch.inf, -1)
    return Nearest(ids[:, :k], scores[:, :k])
