"""Vectors of one's own are matched by raw id, and every mistake in them is one line."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egra_dist.catalog.catalog import Catalog
from egra_dist.catalog.vectors import own_vectors
from egra_dist.errors import UserError
from egra_dist.manifest import Manifest


class Items(Catalog):
    """A catalogue of which only the items' ids are known."""

    def raw_ids(self, entities):
        return pa.chunked_array([self.manifest.counts["ids"][:2], self.manifest.counts["ids"][2:]])


def catalog(ids) -> Catalog:
    manifest = Manifest("catalog", "0" * 16, {}, {}, {"ids": pa.array(ids)})
    return Items(Path("somewhere"), manifest)


def write(folder, ids, vectors, **options):
    path = folder / "vectors.parquet"
    pq.write_table(pa.table({"raw_id": ids, "vector": vectors}), path, **options)
    return path


@pytest.mark.parametrize("known", [["7", "b", "007", "d"], [7, 12, 70, 9]])
@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), 2)]
)
def test_vectors_are_those_of_the_same_id(tmp_path, known, as_text, kind):
    order = [3, 0, 1]  # item 2 has none, and a stranger stands among them
    given = [known[order[0]], "stranger" if isinstance(known[0], str) else 99]
    given += [known[item] for item in order[1:]]
    given = [str(raw) for raw in given] if as_text else given
    vectors = [[3.0, -3.5], [8.0, 8.0], [0.0, -0.5], [1.0, -1.5]]
    path = write(tmp_path, given, pa.array(vectors, kind), row_group_size=2)
    own = own_vectors(catalog(known), path)
    assert own.values.dtype == np.float32
    assert own.present.tolist() == [True, True, False, True]
    assert own.values.tolist() == [[0, -0.5], [1, -1.5], [0, 0], [3, -3.5]]


PAIR = [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (["a", "a"], PAIR, "raw_id 'a' stands there twice"),
        (["a", None], PAIR, "row 1 of 'raw_id' is null"),
        (["a", "b"], [[1.0], None], "row 1 of 'vector' is null"),
        (["a", "b"], [[1.0], [1.0, 2.0]], "vectors have 1 to 2 entries, must have one length"),
        (["a", "b"], pa.array([[], []], pa.list_(pa.float32())), "vectors have 0 to 0 entries"),
        (["a", "b"], [1.0, 2.0], "column 'vector' is double, must be a list of floats"),
        (["a", "b"], [["x"], ["y"]], "column 'vector' is list<element: string>, must hold floats"),
        (["a", "b"], [[{"x": 1}], [{"x": 2}]], "must hold floats"),
        (["a", "b"], [[1.0], [float("nan")]], "row 1 of 'vector' is not finite"),
        (["a", "b"], [[1.0], [1e300]], "row 1 of 'vector' is not finite"),
        (["a", "b"], [[1.0], [None]], "row 1 of 'vector' is not finite"),
        ([["a"], ["b"]], PAIR, "'raw_id' is list<element: string>, must hold strings or integers"),
        (["y", "z"], PAIR, r"none of its 2 ids is an item of somewhere; there .* like 'a'"),
        (pa.array([], pa.string()), pa.array([], pa.list_(pa.float32())), "holds no item vectors"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file(tmp_path, ids, vectors, message):
    path = write(tmp_path, ids, vectors)
    with pytest.raises(UserError, match=message) as caught:
        own_vectors(catalog(["a", "b", "c"]), path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_there(tmp_path):
    path = tmp_path / "vectors.parquet"
    pq.write_table(pa.table({"id": ["a"], "vector": [[1.0]]}), path)
    with pytest.raises(UserError, match=r"no column 'raw_id'; it has \['id', 'vector'\]"):
        own_vectors(catalog(["a", "b", "c"]), path)


def test_a_file_that_is_not_there_or_not_parquet(tmp_path):
    with pytest.raises(UserError, match="no such file of item vectors"):
        own_vectors(catalog(["a", "b", "c"]), tmp_path / "absent.parquet")
    broken = tmp_path / "broken.parquet"
    broken.write_text("raw_id,vector\n")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        own_vectors(catalog(["a", "b", "c"]), broken)
