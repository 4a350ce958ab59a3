"""Tables that start from the vectors of an earlier run; what is new starts from its neighbours."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from egra_dist.catalog.catalog import Catalog, Entities
from egra_dist.catalog.exported import exported_files, read_exported
from egra_dist.errors import UserError
from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import NodePartition
from egra_dist.graph.products import multiply_rows, row_blocks
from egra_dist.model.tables import ITEM, USER, EmbeddingTables, TableShard
from egra_dist.train.shared import create_shared, publish

_TABLES: tuple[tuple[str, Entities], ...] = ((USER, "users"), (ITEM, "items"))

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class WarmStart:
    """Starts the tables of a training.

    Attributes:
        catalog: Who the rows belong to.
        nodes: Who owns which user and item.
        behavior: ``N(A)``: whom a new user, or an item that no feature graph links, starts from.
        features: ``S_m``: whom a new item starts from.
        work: Folder for what the ranks tell each other; removed at the end.
    """

    catalog: Catalog
    nodes: NodePartition
    behavior: Csr
    features: Sequence[Csr]
    work: Path

    def __call__(self, tables: EmbeddingTables, folder: Path) -> None:
        """Overwrites this rank's shards; a collective call. Whom nothing is known of stays random.

        Args:
            tables: As they were drawn.
            folder: See :func:`exported_files`.

        Raises:
            UserError: If vectors are not as wide as the tables.
        """
        num_users, num_nodes = self.nodes.users.num_rows, self.nodes.positions.num_rows
        dim = tables.width(ITEM)
        # The last column tells who is known, so that a product counts known neighbours as well.
        known = create_shared(self.work / "known.npy", num_nodes, dim + 1)
        files = exported_files(folder)
        own_nodes = self.nodes.own_nodes(dist.get_rank())
        for (table, entities), own in zip(_TABLES, own_nodes, strict=True):
            if tables.width(table) != dim:
                raise UserError("warm_start: needs a user table as wide as the item table")
            first = 0 if table == USER else num_users
            ids = self.catalog.raw_ids(entities).slice(own.start - first, own.stop - own.start)
            read_exported(files[entities], ids, known[own])
        publish(known)
        dist.barrier()
        for table, first in ((USER, 0), (ITEM, num_users)):
            for shard in tables.shards(table):
                self._overwrite(shard, first, known)
        tables.purge()
        dist.barrier()
        if dist.get_rank() == 0:
            shutil.rmtree(self.work)

    def _overwrite(self, shard: TableShard, first: int, known: Rows) -> None:
        """Overwrites a shard of a table whose first row is node ``first``."""
        target = shard.values
        own = slice(first + shard.rows.start, first + shard.rows.stop)
        for rows in row_blocks(self.behavior, own):
            start = self._start(rows, known)
            is_known = np.flatnonzero(start[:, -1])
            values = (start[is_known, :-1] / start[is_known, -1:])[:, shard.columns]
            places = torch.from_numpy(is_known + rows.start - own.start)
            target[places.to(target.device)] = torch.from_numpy(values).to(target)

    def _start(self, rows: slice, known: Rows) -> Rows:
        """Sums over those who are known, and their number or weight, ``[num_rows, dim + 1]``."""
        start = np.array(known[rows])
        num_users = self.nodes.users.num_rows
        if rows.start >= num_users:
            items = slice(rows.start - num_users, rows.stop - num_users)
            sums = [multiply_rows(graph, items, known[num_users:]) for graph in self.features]
            _fill(start, np.sum(sums, axis=0) if sums else np.zeros_like(start))
        _fill(start, multiply_rows(self.behavior, rows, known))
        return start


def _fill(start: Rows, others: Rows) -> None:
    """Takes the rows of others where nothing is known yet."""
    is_new = start[:, -1] == 0
    start[is_new] = others[is_new]
