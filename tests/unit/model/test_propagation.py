import numpy as np
import pytest
import torch

from egra_dist.graph.csr import Csr
from egra_dist.graph.partition import RowPartition
from egra_dist.model.propagation import PartitionedMatrix, mean_of_layers
from egra_dist.model.selected import Selection
from tests.matrices import csr_of


def random_matrix(num_rows, num_columns, share, seed=0):
    random = np.random.default_rng(seed)
    dense = random.random((num_rows, num_columns)) * (
        random.random((num_rows, num_columns)) < share
    )
    dense[num_rows // 2] = 0  # an isolated row
    return csr_of(dense), dense


def selection(rows, num_rows):
    return Selection(torch.tensor(rows, dtype=torch.int64), RowPartition.even(num_rows, 1))


@pytest.mark.parametrize(("num_rows", "num_columns"), [(5, 9), (9, 5), (6, 6)])
def test_product_and_gradient_match_float64(num_rows, num_columns):
    matrix, dense = random_matrix(num_rows, num_columns, share=0.4)
    product = PartitionedMatrix(matrix, RowPartition.even(num_columns, 1), torch.device("cpu"))
    x = torch.randn(num_columns, 3, requires_grad=True)
    weights = torch.randn(num_rows, 3)
    result = product @ x
    (result * weights).sum().backward()
    np.testing.assert_allclose(result.detach(), dense @ x.detach().double().numpy(), atol=1e-6)
    np.testing.assert_allclose(x.grad, dense.T @ weights.double().numpy(), atol=1e-6)
    assert product.num_halo_rows == 0


@pytest.mark.parametrize("rows", [[0, 3, 4], [2], []])
def test_some_rows_of_a_product_and_their_gradient_match_float64(rows):
    matrix, dense = random_matrix(5, 9, share=0.4)
    product = PartitionedMatrix(matrix, RowPartition.even(9, 1), torch.device("cpu"))
    x = torch.randn(9, 3, requires_grad=True)
    weights = torch.randn(len(rows), 3)
    result = product.at(selection(rows, 5)) @ x
    (result * weights).sum().backward()
    some = dense[rows]
    np.testing.assert_allclose(result.detach(), some @ x.detach().double().numpy(), atol=1e-6)
    np.testing.assert_allclose(x.grad, some.T @ weights.double().numpy(), atol=1e-6)


@pytest.mark.parametrize(("rows", "plain"), [([0, 3, 4], [1, 8]), ([2], []), ([], [0])])
def test_rows_of_the_dense_matrix_come_along_with_those_of_a_product(rows, plain):
    matrix, dense = random_matrix(5, 9, share=0.4)
    product = PartitionedMatrix(matrix, RowPartition.even(9, 1), torch.device("cpu"))
    x = torch.randn(9, 3, requires_grad=True)
    weights = torch.randn(len(rows) + len(plain), 3)
    along = torch.tensor(plain, dtype=torch.int64)
    result = product.at(selection(rows, 5), along) @ x
    (result * weights).sum().backward()
    both = np.concatenate([dense[rows], np.eye(9)[plain]])
    np.testing.assert_allclose(result.detach(), both @ x.detach().double().numpy(), atol=1e-6)
    np.testing.assert_allclose(x.grad, both.T @ weights.double().numpy(), atol=1e-6)


def test_products_with_several_matrices_stand_beside_each_other():
    matrix, dense = random_matrix(5, 9, share=0.4)
    product = PartitionedMatrix(matrix, RowPartition.even(9, 1), torch.device("cpu"))
    x, y = torch.randn(9, 3, requires_grad=True), torch.randn(9, 2, requires_grad=True)
    rows, plain = [0, 3, 4], [1, 8]
    weights = torch.randn(5, 5)
    result = product.at(selection(rows, 5), torch.tensor(plain)).beside([x, y])
    (result * weights).sum().backward()
    both = np.concatenate([dense[rows], np.eye(9)[plain]])
    inputs = torch.cat([x, y], dim=1).detach().double().numpy()
    np.testing.assert_allclose(result.detach(), both @ inputs, atol=1e-6)
    gradients = both.T @ weights.double().numpy()
    np.testing.assert_allclose(torch.cat([x.grad, y.grad], dim=1), gradients, atol=1e-6)


def test_mean_of_layers_is_the_mean_of_the_powers():
    matrix, dense = random_matrix(7, 7, share=0.5)
    product = PartitionedMatrix(matrix, RowPartition.even(7, 1), torch.device("cpu"))
    x = torch.randn(7, 4)
    powers = [np.linalg.matrix_power(dense, layer) @ x.double().numpy() for layer in range(4)]
    np.testing.assert_allclose(
        mean_of_layers(product, x, num_layers=3), np.mean(powers, axis=0), atol=1e-5
    )


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_mean_of_layers_of_some_rows_and_its_gradient_match_float64(num_layers):
    matrix, dense = random_matrix(7, 7, share=0.5)
    product = PartitionedMatrix(matrix, RowPartition.even(7, 1), torch.device("cpu"))
    x, weights = torch.randn(7, 4, requires_grad=True), torch.randn(3, 4)
    rows = [0, 2, 5]
    result = mean_of_layers(product, x, num_layers, selection(rows, 7))
    (result * weights).sum().backward()
    powers = [np.linalg.matrix_power(dense, layer) for layer in range(num_layers + 1)]
    mean = np.mean(powers, axis=0)[rows]
    np.testing.assert_allclose(result.detach(), mean @ x.detach().double().numpy(), atol=1e-5)
    np.testing.assert_allclose(x.grad, mean.T @ weights.double().numpy(), atol=1e-5)


def test_matrix_without_entries():
    empty = Csr(np.zeros(4, np.int64), np.zeros(0, np.int32), None, 2)
    product = PartitionedMatrix(empty, RowPartition.even(2, 1), torch.device("cpu"))
    assert torch.equal(product @ torch.randn(2, 3), torch.zeros(3, 3))
