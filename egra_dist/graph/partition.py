"""Who owns which row: contiguous blocks, as TorchRec shards a table row-wise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from egra_dist.graph.csr import Csr

SMALL_SELECTION = 0.1
"""Of all rows: the transpose of so few is made faster than that of all is multiplied."""


@dataclass(frozen=True)
class RowPartition:
    """Contiguous blocks of rows, one per rank.

    Attributes:
        starts: ``int64 [num_ranks + 1]``; rank ``r`` owns rows ``starts[r]:starts[r + 1]``.
    """

    starts: NDArray[np.int64]

    @classmethod
    def even(cls, num_rows: int, num_ranks: int) -> "RowPartition":
        """Blocks of ``ceil(num_rows / num_ranks)`` rows, the last ones shorter."""
        block = -(-num_rows // num_ranks)
        return cls(np.minimum(np.arange(num_ranks + 1, dtype=np.int64) * block, num_rows))

    @property
    def num_ranks(self) -> int:
        """Number of blocks."""
        return len(self.starts) - 1

    @property
    def num_rows(self) -> int:
        """Number of rows over all ranks."""
        return int(self.starts[-1])

    def block(self, rank: int) -> slice:
        """The rows that ``rank`` owns."""
        return slice(int(self.starts[rank]), int(self.starts[rank + 1]))

    def size(self, rank: int) -> int:
        """Number of rows that ``rank`` owns."""
        return int(self.starts[rank + 1] - self.starts[rank])

    def owner_of(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """The rank that owns each row, same shape as ``rows``."""
        return np.searchsorted(self.starts, rows, side="right") - 1


@dataclass(frozen=True)
class NodePartition:
    """Users and items of one rank side by side.

    Nodes of the behaviour graph are users ``0..U-1`` and items ``U..U+I-1``. Each rank owns a block
    of users and a block of items (its shards of the two tables). *Positions* renumber the nodes so
    that a rank's own nodes are contiguous, its users first: then a node partition is an ordinary
    :class:`RowPartition` of positions.
    """

    users: RowPartition
    items: RowPartition

    @property
    def positions(self) -> RowPartition:
        """The partition of positions."""
        return RowPartition(self.users.starts + self.items.starts)

    def position_of_users(self, users: NDArray[np.integer]) -> NDArray[np.int64]:
        """Position of each user, same shape."""
        return users + self.items.starts[self.users.owner_of(users)]

    def position_of_items(self, items: NDArray[np.integer]) -> NDArray[np.int64]:
        """Position of each item, same shape."""
        return items + self.users.starts[self.items.owner_of(items) + 1]

    def position_of_nodes(self, nodes: NDArray[np.integer]) -> NDArray[np.int64]:
        """Position of each node (item ``i`` is node ``U + i``), same shape."""
        num_users = self.users.num_rows
        is_user = nodes < num_users
        positions = np.empty(nodes.shape, dtype=np.int64)
        positions[is_user] = self.position_of_users(nodes[is_user])
        positions[~is_user] = self.position_of_items(nodes[~is_user] - num_users)
        return positions

    def nodes_at(self, positions: NDArray[np.integer]) -> NDArray[np.int64]:
        """The node at each position, same shape."""
        owners = self.positions.owner_of(positions)
        places = positions - self.positions.starts[owners]
        num_users = np.diff(self.users.starts)[owners]
        users = self.users.starts[owners] + places
        items = self.users.num_rows + self.items.starts[owners] + places - num_users
        return np.where(places < num_users, users, items)

    def own_nodes(self, rank: int) -> list[slice]:
        """The rows of a node matrix that ``rank`` owns, in the order of their positions."""
        num_users = self.users.num_rows
        items = self.items.block(rank)
        return [self.users.block(rank), slice(num_users + items.start, num_users + items.stop)]


def take_rows(matrix: Csr, blocks: list[slice]) -> Csr:
    """The named row blocks of a matrix, one below the other, copied into memory."""
    spans = [slice(int(matrix.indptr[b.start]), int(matrix.indptr[b.stop])) for b in blocks]
    degrees = [np.diff(matrix.indptr[b.start : b.stop + 1]) for b in blocks]
    values = matrix.values
    return Csr(
        indptr=np.concatenate([[0], np.cumsum(np.concatenate(degrees))]).astype(np.int64),
        indices=np.concatenate([matrix.indices[span] for span in spans]),
        values=None if values is None else np.concatenate([values[span] for span in spans]),
        num_columns=matrix.num_columns,
    )
