from pathlib import Path

import numpy as np
import pytest

ROWS = [
    (0, 0, 0), (0, 1, 0), (0, 2, 1), (0, 3, 2),
    (1, 1, 0), (1, 3, 0), (1, 0, 2),
    (2, 2, 0), (2, 0, 0),
]  # fmt: skip


class MmrecFolder:
    """A small MMRec folder that a test spoils before it is ingested."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inter = path / "tiny.inter"
        path.mkdir()
        self.write(ROWS)

    def write(self, rows, header="userID\titemID\tx_label"):
        lines = ["\t".join(str(value) for value in row) for row in rows]
        self.inter.write_text("\n".join([header, *lines]) + "\n")

    def add_features(self, name="text", num_rows=4, dim=3, dtype=np.float32):
        values = np.arange(1, num_rows * dim + 1, dtype=dtype).reshape(num_rows, dim)
        return self.save_features(values, name)

    def save_features(self, values, name="text"):
        np.save(self.path / f"{name}_feat.npy", values)
        return values


@pytest.fixture
def mmrec_folder(tmp_path: Path) -> MmrecFolder:
    return MmrecFolder(tmp_path / "raw")
