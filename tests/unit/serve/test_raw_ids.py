import numpy as np
import pyarrow as pa
import pytest

from egra_dist.serve.egra_model import ids as ids_module
from egra_dist.serve.egra_model.ids import Ids, write_ids


def opened(folder, *batches, kind=None):
    kind = kind or pa.string()
    write_ids((pa.array(batch, kind) for batch in batches), kind, folder)
    return Ids.open(folder)


@pytest.mark.parametrize("share_hashes", [False, True])
def test_ids_are_found_in_both_directions(tmp_path, monkeypatch, share_hashes):
    if share_hashes:
        monkeypatch.setattr(ids_module, "_hash", lambda raw: np.uint64(7))
    ids = opened(tmp_path, ["b", "é"], ["a"])
    assert len(ids) == 3 and not ids.are_integers
    assert ids.find(["a", "x", "b", "é"]).tolist() == [2, -1, 0, 1]
    assert ids.of_rows([2, 0]) == ["a", "b"]
    assert ids.find([]).tolist() == []


def test_integers(tmp_path):
    ids = opened(tmp_path, [2**60, -5, 7], kind=pa.int64())
    assert ids.find([7, 2**60, 8, 10**30]).tolist() == [2, 0, -1, -1]
    assert ids.of_rows([0]) == [2**60]
    for given, meant in ((7, 7), (7.0, 7), ("7", 7), ("-5", -5), (np.int64(7), 7)):
        assert ids.parse(given) == meant
    for given in (True, "a", "", 1.5, float("inf"), None, [7], {"a": 7}, 2.0**60):
        with pytest.raises(ValueError, match=r"must be an integer|too large"):
            ids.parse(given)


def test_strings_are_not_made_of_other_things(tmp_path):
    ids = opened(tmp_path, ["7"])
    assert ids.parse("7") == "7"
    for given in (7, "", None, ["7"]):
        with pytest.raises(ValueError, match="must be a string"):
            ids.parse(given)
