"""Item vectors as ascending tiles: local ones, or broadcast by the ranks that own them."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from egra_dist.graph.partition import RowPartition


class ItemTile(NamedTuple):
    """Vectors ``[tile_size, dim]`` of the items ``start, start + 1, ...``."""

    start: int
    vectors: Tensor

    def split(self, width: int) -> "Iterator[ItemTile]":
        """Consecutive parts of at most ``width`` items."""
        for offset in range(0, len(self.vectors), width):
            yield ItemTile(self.start + offset, self.vectors[offset : offset + width])


def local_tiles(
    vectors: Tensor | NDArray, tile_size: int, device: torch.device | None = None
) -> Iterator[ItemTile]:
    """Tiles of vectors that this process holds or has memory-mapped, as float32.

    Args:
        vectors: ``[num_items, dim]``, of any floating type.
        tile_size: Items per tile.
        device: Where the tiles go; where ``vectors`` is when not given.
    """
    for start in range(0, len(vectors), tile_size):
        part = vectors[start : start + tile_size]
        tile = torch.from_numpy(np.array(part)) if isinstance(part, np.ndarray) else part
        yield ItemTile(start, tile.to(device, torch.float32))


def distributed_tiles(
    vectors: Tensor,
    partition: RowPartition,
    tile_size: int,
    group: dist.ProcessGroup | None = None,
) -> Iterator[ItemTile]:
    """Tiles of row-partitioned vectors, each broadcast from the rank that owns it.

    A collective call: every rank must exhaust it. The next tile travels while the current one is
    worked on.

    Args:
        vectors: ``[partition.size(rank), dim]``, this rank's block.
        partition: Who owns which items.
        tile_size: Largest number of items per tile.
        group: Process group; the default one when not given.
    """
    rank = dist.get_rank(group)
    own = partition.block(rank)
    assert len(vectors) == partition.size(rank), "vectors are not this rank's block"

    def send(owner: int, start: int, stop: int) -> tuple[ItemTile, dist.Work]:
        if owner == rank:
            tile = vectors[start - own.start : stop - own.start].float().contiguous()
        else:
            tile = vectors.new_empty(stop - start, vectors.shape[1], dtype=torch.float32)
        work = dist.broadcast(tile, group=group, group_src=owner, async_op=True)
        assert work is not None, "this rank belongs to the group"
        return ItemTile(start, tile), work

    underway: deque[tuple[ItemTile, dist.Work]] = deque()
    for owner in range(partition.num_ranks):
        block = partition.block(owner)
        for start in range(block.start, block.stop, tile_size):
            underway.append(send(owner, start, min(start + tile_size, block.stop)))
            if len(underway) > 1:
                yield _received(*underway.popleft())
    while underway:
        yield _received(*underway.popleft())


def _received(tile: ItemTile, work: dist.Work) -> ItemTile:
    work.wait()
    return tile
