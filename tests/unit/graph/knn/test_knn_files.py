import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egra_dist.errors import UserError
from egra_dist.graph.knn import KnnSettings, build_knn, output
from egra_dist.graph.knn.output import to_csr, write_parquet
from egra_dist.graph.knn.vectors import read_vectors


@pytest.fixture
def graph():
    vectors = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    vectors[7] = 0
    return build_knn(vectors, KnnSettings(k=3))


def test_edges_are_written_in_parts_best_first(graph, tmp_path, monkeypatch):
    monkeypatch.setattr(output, "_EDGES_PER_FILE", 60)
    assert write_parquet(graph, tmp_path) == 49 * 3
    assert len(list(tmp_path.iterdir())) == 3
    table = pq.read_table(tmp_path).to_pydict()
    assert table["item"][:4] == [0, 0, 0, 1]
    assert table["neighbor"][:3] == graph.neighbors[0].tolist()
    assert table["score"][:3] == graph.scores[0].tolist()
    assert 7 not in table["item"]


def test_edges_are_written_with_raw_ids(graph, tmp_path):
    names = pa.chunked_array([[f"item-{row}" for row in range(50)]])
    write_parquet(graph, tmp_path, names)
    table = pq.read_table(tmp_path).to_pydict()
    assert table["neighbor"][:3] == [f"item-{n}" for n in graph.neighbors[0]]


def test_the_sparse_matrix_holds_every_edge(graph):
    csr = to_csr(graph)
    assert csr.num_rows == csr.num_columns == 50
    for row in range(50):
        part = slice(csr.indptr[row], csr.indptr[row + 1])
        expected = sorted(
            (n, s) for n, s in zip(graph.neighbors[row], graph.scores[row], strict=True) if n >= 0
        )
        assert list(zip(csr.indices[part], csr.values[part], strict=True)) == expected


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float16())])
def test_a_parquet_table_with_missing_vectors(kind, tmp_path):
    rows = [[1.0, 2.0, 3.0], None, [0.5, 0.0, 1.0]]
    values = [None if row is None else [np.float16(x) for x in row] for row in rows]
    table = pa.table({"id": ["a", "b", "c"], "vector": pa.array(values, kind)})
    pq.write_table(table, tmp_path / "vectors.parquet")
    vectors = read_vectors(tmp_path / "vectors.parquet", "vector", "id", tmp_path / "work")
    assert vectors.present.tolist() == [True, False, True]
    assert vectors.values[[0, 2]].tolist() == [rows[0], rows[2]]
    assert vectors.values.dtype == kind.value_type.to_pandas_dtype()
    assert vectors.raw_ids.to_pylist() == ["a", "b", "c"]


def test_a_parquet_table_of_lists_of_a_fixed_size(tmp_path):
    path = tmp_path / "a.parquet"
    kind = pa.list_(pa.float32(), 2)
    pq.write_table(
        pa.table({"v": pa.array([[1.0, 2.0], [3.0, 4.0]], kind)}), tmp_path / "a.parquet"
    )
    vectors = read_vectors(path, "v", None, tmp_path / "work")
    assert vectors.values.tolist() == [[1, 2], [3, 4]]
    assert vectors.present is None
    pq.write_table(pa.table({"v": pa.array([[1.0, 2.0], None], kind)}), path)
    with pytest.raises(UserError, match="need a list type without a fixed size"):
        read_vectors(path, "v", None, tmp_path / "work")


def test_unreadable_vectors_say_why(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_vectors(tmp_path / "none.npy", "vector", None, tmp_path)
    (tmp_path / "bad.npy").write_text("hello")
    with pytest.raises(UserError, match=r"bad\.npy: not a readable"):
        read_vectors(tmp_path / "bad.npy", "vector", None, tmp_path)
    (tmp_path / "table.csv").write_text("1")
    with pytest.raises(UserError, match=r"expected a \.npy file"):
        read_vectors(tmp_path / "table.csv", "vector", None, tmp_path)
    table = pa.table({"vector": [[1.0, 2.0], [1.0]], "other": [1, 2]})
    pq.write_table(table, tmp_path / "ragged.parquet")
    with pytest.raises(UserError, match=r"vectors of \[1, 2\] numbers"):
        read_vectors(tmp_path / "ragged.parquet", "vector", None, tmp_path)
    with pytest.raises(UserError, match="no column 'embedding'"):
        read_vectors(tmp_path / "ragged.parquet", "embedding", None, tmp_path)
    with pytest.raises(UserError, match="int64, expected lists of floats"):
        read_vectors(tmp_path / "ragged.parquet", "other", None, tmp_path)
