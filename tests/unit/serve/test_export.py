import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egra_dist.serve import export


class Raw:
    """As much of a catalogue as the export asks for."""

    def id_type(self, entities):
        return pa.string()

    def iter_raw_ids(self, entities, batch_rows):
        ids = [f"{entities}-{i}" for i in range(5)]
        return (pa.array(ids[start : start + batch_rows]) for start in range(0, 5, batch_rows))


@pytest.mark.parametrize(("rows_per_part", "num_parts"), [(2, 3), (100, 1)])
def test_vectors_come_back_with_raw_ids(tmp_path, monkeypatch, rows_per_part, num_parts):
    monkeypatch.setattr(export, "_ROWS_PER_PART", rows_per_part)
    monkeypatch.setattr(export, "_ROWS_PER_BATCH", min(rows_per_part, 3))
    vectors = np.random.default_rng(0).random((5, 3), dtype=np.float32)
    written = export.export_vectors(Raw(), "users", vectors, tmp_path / "users")
    assert len(list((tmp_path / "users").iterdir())) == num_parts
    table = pq.read_table(tmp_path / "users")
    assert written == table.num_rows == 5
    assert table["raw_id"].to_pylist() == [f"users-{i}" for i in range(5)]
    assert np.array_equal(np.stack(table["vector"].to_numpy()), vectors)
