import json

import pytest

from egra_dist.errors import UserError
from egra_dist.files import inside, write_json


def test_json_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"recall_at_20": 0.1})
    with pytest.raises(TypeError):
        write_json(path, {"recall_at_20": object()})
    assert json.loads(path.read_text()) == {"recall_at_20": 0.1}


@pytest.mark.parametrize("name", ["../other", "a/../../other", "/etc/passwd"])
def test_a_path_that_leads_out_of_its_folder(tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(UserError, match="leads out of"):
        inside(folder, folder / name)


def test_a_link_that_leads_out_of_its_folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="leads out of"):
        inside(folder, folder / "link" / "other")
    assert inside(folder, folder / "own" / "file") == folder / "own" / "file"
