"""Tables in sight of all ranks of one machine: each reads rows where they are.

A rank's rows are a file in memory that all ranks have open. Nobody is asked for rows, and nothing
is sent but gradients, with the rows that they are of. Ranks meet twice in a step: when all have
updated their rows, before anybody reads; and when all have read, in the exchange of gradients.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from torch import Tensor

from egra_dist.graph.partition import RowPartition
from egra_dist.model.exchange import copy_all, rank, swap_kinds, traffic, world_size
from egra_dist.model.lookup import RowExchange, select
from egra_dist.model.meeting import done_by_all
from egra_dist.model.row_gradients import RowSums, TableRows
from egra_dist.model.segment import Segment, has_room_for, row_size


class SharedTables:
    """The files of all ranks' rows; opened by all ranks together.

    Args:
        name: The same on all ranks.
        partitions: Who owns which row of each table.
        like: The type and the width of each table's rows, ``[any, dim]``.

    Raises:
        OSError: If this rank cannot make its files, or should not, for want of room.
    """

    def __init__(
        self, name: str, partitions: Mapping[str, RowPartition], like: Mapping[str, Tensor]
    ) -> None:
        self._name, self._partitions, self._like = name, partitions, like
        self._segments: dict[str, list[Segment]] = {}
        self.own: list[Segment] = []
        needed = sum(part.num_rows * row_size(like[table]) for table, part in partitions.items())
        if not has_room_for(needed):
            raise OSError("no room for the tables")
        with ExitStack() as undo:
            for table, partition in partitions.items():
                size = partition.size(rank()) * row_size(like[table])
                segment = Segment(self._file(table, rank()), is_new=True, size=size)
                undo.callback(segment.path.unlink)
                self.own.append(segment)
            undo.pop_all()

    def open(self) -> None:
        """Opens the files of the others once they have made them; ``OSError`` if it cannot."""
        for number, table in enumerate(self._partitions):
            self._segments[table] = [
                self.own[number] if of == rank() else Segment(self._file(table, of), is_new=False)
                for of in range(world_size())
            ]

    def shards(self, table: str) -> list[Tensor]:
        """Every rank's rows, ``[num_own_rows, dim]``; what is written there is in the table."""
        sizes = map(self._partitions[table].size, range(world_size()))
        parts = zip(self._segments[table], sizes, strict=True)
        return [segment.rows(0, self._like[table], size) for segment, size in parts]

    def _file(self, table: str, of: int) -> str:
        return f"{self._name}-{table}-{of}"


class SharedRows(RowExchange):
    """Rows are read where they are, and gradients sent with the rows that they are of.

    Args:
        tables: Own rows of each table.
        partitions: Who owns which row of each table.
        ids: Of each table the rows that this rank wants, distinct, ascending.
        shards: Of each table every rank's rows ``[num_own_rows, dim]``.
    """

    def __init__(
        self,
        tables: Sequence[TableRows],
        partitions: Sequence[RowPartition],
        ids: Sequence[Tensor],
        shards: Sequence[Sequence[Tensor]],
    ) -> None:
        super().__init__(tables, partitions, ids)
        self._shards = shards

    def read(self, targets: Sequence[Tensor]) -> None:
        """See :meth:`RowExchange.read`."""
        meet()
        for owner, parts in enumerate(self._by_rank(targets)):
            for shards, wanted, target in zip(self._shards, self._wanted, parts, strict=True):
                select(shards[owner], wanted[owner], target)
                if owner != rank():
                    traffic.add(shards[owner], len(target))

    def give_back(self, gradients: Sequence[Tensor]) -> None:
        """See :meth:`RowExchange.give_back`."""
        outgoing = self._by_rank(gradients)
        if world_size() == 1:
            self._leave([[own] for own in self._own(outgoing[0])])
            return
        sums = self._sums(outgoing[rank()])
        self._swap(outgoing, sums)
        self._leave([of_table.groups() for of_table in sums])

    def _swap(self, outgoing: Sequence[Sequence[Tensor]], sums: Sequence[RowSums]) -> None:
        """Sends rows and their gradients to the owners, and adds up what comes."""
        num_tables = len(self.tables)

        def write(other: int, sent: Sequence[Tensor]) -> None:
            copy_all(sent, [*(wanted[other] for wanted in self._wanted), *outgoing[other]])

        def add(other: int, came: Sequence[Tensor]) -> None:
            for of_table, rows, values in zip(sums, came, came[num_tables:], strict=False):
                of_table.add(rows, values)

        likes = [wanted[0] for wanted in self._wanted] + list(outgoing[0])
        swap_kinds(likes, self._num_wanted * 2, None, write, add)


def meet() -> None:
    """Waits for all ranks: what they had to do with shared tables is done."""
    if world_size() > 1:
        done_by_all(True)
