"""What is refused of finished runs."""

import json

import pytest

from egra_dist.errors import UserError
from egra_dist.exports import MODEL, FinishedRun, open_explainer
from egra_dist.manifest import Manifest
from egra_dist.serve.model import DATA


@pytest.fixture
def run(tmp_path):
    """A folder that has trained, exported, and trained again with other settings."""
    (tmp_path / "artifacts.json").write_text(json.dumps({"train": "/artifacts/train-b"}))
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "export" / MODEL / DATA).mkdir(parents=True)
    Manifest("export", "e", inputs={"train": "a", "graphs": "g"}).write(tmp_path / "export")
    return tmp_path


def test_an_export_of_an_earlier_training_is_not_explained_by_a_later_one(run):
    with pytest.raises(UserError, match="its export is of an earlier training; first: egra-dist"):
        open_explainer(run)


def test_what_was_trained_cannot_be_overridden(run):
    with pytest.raises(UserError, match=r"--set train\.max_epochs: the run is trained"):
        FinishedRun.open(run, ["train.max_epochs=3"])
    assert FinishedRun.open(run, ["export.top_k=3"]).config.export.top_k == 3
