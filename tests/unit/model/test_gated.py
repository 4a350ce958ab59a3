import numpy as np
import pytest
import torch

from egra_dist.graph.partition import RowPartition
from egra_dist.model.gated import gated_product
from egra_dist.model.propagation import PartitionedMatrix
from tests.matrices import csr_of

NUM_ITEMS, DIM = 6, 3


@pytest.mark.parametrize("without", [[], [1, 4]])
def test_product_is_that_of_gated_items_and_its_gradient_the_numerical_one(without):
    dense = np.random.default_rng(0).random((NUM_ITEMS, NUM_ITEMS)).round()
    graph = PartitionedMatrix(csr_of(dense), RowPartition.even(NUM_ITEMS, 1), torch.device("cpu"))
    torch.manual_seed(0)
    embeddings, logits = torch.randn(2, NUM_ITEMS, DIM, dtype=torch.float64).unbind()
    missing = torch.tensor(without, dtype=torch.int64)
    gated = embeddings * torch.sigmoid(logits)
    gated[without] = 0
    torch.testing.assert_close(
        gated_product(graph, embeddings, logits, missing), torch.as_tensor(dense) @ gated
    )
    assert torch.autograd.gradcheck(
        lambda e, x: gated_product(graph, e, x, missing),
        (embeddings.requires_grad_(), logits.requires_grad_()),
    )
