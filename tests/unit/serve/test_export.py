import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egra_dist.serve import export


class Raw:
    """As much of a catalogue as the export asks for."""

    def raw_ids(self, entities):
        return pa.chunked_array([[f"{entities}-{i}" for i in range(4)], ["last"]])


@pytest.mark.parametrize("rows_per_group", [2, 100])
def test_vectors_come_back_with_raw_ids(tmp_path, monkeypatch, rows_per_group):
    monkeypatch.setattr(export, "_ROWS_PER_GROUP", rows_per_group)
    vectors = np.random.default_rng(0).random((5, 3), dtype=np.float32)
    written = export.export_vectors(Raw(), "users", vectors, tmp_path / "users.parquet")
    table = pq.read_table(tmp_path / "users.parquet")
    assert written == table.num_rows == 5
    assert table["raw_id"].to_pylist() == ["users-0", "users-1", "users-2", "users-3", "last"]
    assert np.array_equal(np.stack(table["vector"].to_numpy()), vectors)
