"""Counting, tile by tile, how many items stand before each positive."""

from collections.abc import Callable

import torch
from torch import Tensor

from egra_dist.evaluate.entries import EntriesByItem, TileEntries

ExactScores = Callable[[Tensor, Tensor], Tensor]
"""Rows and columns ``[n]`` of a block of scores -> their float64 scores ``[n]``."""

_GROUP_SIZE = 32
"""Columns whose maximum decides whether they are looked at one by one."""
_MAX_POSITIVES = 4096
"""Positives compared with a block of scores at once."""
_MAX_PAIRS = 2**16
"""Pairs scored exactly at once."""


class BeatenCounter:
    """For each positive, the number of items so far that stand before it in the ranking.

    Of two items with equal scores the lower one stands first. A positive is *open* while fewer
    than ``k`` items stand before it; others are not followed any further.

    Attributes:
        counts: ``int64 [num_positives]``; at least ``k`` for positives that are not open.
        scores: ``float64 [num_positives]`` exact scores, to be filled in before they are compared.
    """

    def __init__(self, positives: EntriesByItem, seen: EntriesByItem, k: int) -> None:
        """Starts at zero; a positive that was seen is not ranked and starts at ``k``.

        Args:
            positives: User row (ascending) and item of each positive.
            seen: What is not ranked.
            k: Ranks from ``k`` on are not told apart.
        """
        self._rows, self._items, self._k = positives.rows, positives.items, k
        self.counts = k * seen.contains(positives.rows, positives.items).long()
        self.scores = torch.zeros_like(self._rows, dtype=torch.float64)

    def open_positives(self, block: slice) -> Tensor:
        """Numbers of the open positives of a range of user rows, ascending by row."""
        bounds = self._rows.new_tensor([block.start, block.stop])
        begin, end = torch.searchsorted(self._rows, bounds).tolist()
        return begin + (self.counts[begin:end] < self._k).nonzero()[:, 0]

    def rows_of(self, positives: Tensor) -> Tensor:
        """Distinct user rows of some positives, ascending."""
        return self._rows[positives].unique_consecutive()

    def count(
        self,
        positives: Tensor,
        approximate: Tensor,
        tolerance: Tensor,
        seen: TileEntries,
        start: int,
        exact: ExactScores,
    ) -> None:
        """Takes a run of items into account.

        Args:
            positives: Open positives of some users.
            approximate: ``[num_rows, width]`` scores of :meth:`rows_of` these positives;
                overwritten.
            tolerance: ``[num_rows]`` bound of their error.
            seen: Entries among them that are not ranked.
            start: Item of the first column.
            exact: Exact scores of chosen pairs.
        """
        rows = self.rows_of(positives)
        _mask(approximate, rows, seen)
        groups = _grouped(approximate)
        peaks = groups.amax(1)
        for part in positives.split(_MAX_POSITIVES):
            local = torch.searchsorted(rows, self._rows[part])
            low = (self.scores[part] - tolerance[local]).to(approximate.dtype)[:, None]
            high = (self.scores[part] + tolerance[local]).to(approximate.dtype)[:, None]
            beaten = self.counts[part] + (peaks[local] > high).sum(1) >= self._k
            self.counts[part[beaten]] = self._k
            near, group = ((peaks[local] >= low) & ~beaten[:, None]).nonzero(as_tuple=True)
            scores = groups[local[near], :, group]
            above = scores > high[near]
            self.counts.index_add_(0, part[near], above.sum(1))
            unsure, offset = ((scores >= low[near]) & ~above).nonzero(as_tuple=True)
            near, columns = near[unsure], offset * groups.shape[2] + group[unsure]
            self._compare(part[near], local[near], columns, start, exact)

    def _compare(
        self, positives: Tensor, local: Tensor, columns: Tensor, start: int, exact: ExactScores
    ) -> None:
        """Settles the pairs whose approximate scores are too close to call."""
        fields = (positives, local, columns)
        for part, row, column in zip(*(f.split(_MAX_PAIRS) for f in fields), strict=True):
            scores, own = exact(row, column), self.scores[part]
            before = (scores > own) | ((scores == own) & (start + column < self._items[part]))
            self.counts.index_add_(0, part, before.long())


def _mask(scores: Tensor, rows: Tensor, seen: TileEntries) -> None:
    """Puts -inf where a user, of those in ``rows``, has seen the item."""
    local = torch.searchsorted(rows, seen.rows).clamp_(max=len(rows) - 1)
    present = rows[local] == seen.rows
    scores[local[present], seen.columns[present]] = -torch.inf


def _grouped(scores: Tensor) -> Tensor:
    """Columns in strided groups ``[num_rows, group_size, num_groups]``, padded with -inf."""
    num_groups = -(-scores.shape[1] // _GROUP_SIZE)
    padding = num_groups * _GROUP_SIZE - scores.shape[1]
    if padding:
        scores = torch.nn.functional.pad(scores, (0, padding), value=-torch.inf)
    return scores.view(len(scores), _GROUP_SIZE, num_groups)
