import pytest
import torch

from egra_dist.model.row_gradients import RowGradients, RowSums, TableRows

NUM_ROWS, DIM = 50, 3


@pytest.mark.parametrize("num_others", [0, 1, 3])
@pytest.mark.parametrize("num_own", [0, 20])
def test_sums_are_those_of_dense_gradients_and_no_row_is_there_twice(num_others, num_own):
    torch.manual_seed(num_others)
    table = TableRows(torch.zeros(NUM_ROWS, DIM))
    sizes = [num_own, *[12 * n for n in range(num_others)]]  # one of them has nothing
    for _ in range(2):  # the scratch is as before
        parts = [
            (torch.randperm(NUM_ROWS)[:size].sort().values, torch.randn(size, DIM))
            for size in sizes
        ]
        wanted = torch.zeros(NUM_ROWS, DIM)
        for rows, values in parts:
            wanted[rows] += values
        sums = RowSums(RowGradients(*parts[0]), table.places)
        for rows, values in parts[1:]:
            sums.add(rows, values)
        groups = sums.groups()
        rows, values = (torch.cat([getattr(g, of) for g in groups]) for of in ("rows", "values"))
        assert len(rows.unique()) == len(rows)
        assert sorted(rows.tolist()) == sorted({r for part, _ in parts for r in part.tolist()})
        torch.testing.assert_close(torch.zeros(NUM_ROWS, DIM).index_add_(0, rows, values), wanted)
        assert (table.places == -1).all()


def test_gradients_are_left_until_they_are_taken():
    table = TableRows(torch.zeros(NUM_ROWS, DIM))
    group = RowGradients(torch.tensor([1]), torch.ones(1, DIM))
    table.leave_gradients([group])
    with pytest.raises(AssertionError, match="an update comes between"):
        table.leave_gradients([group])
    assert table.take_gradients() == [group]
    assert not table.take_gradients()
