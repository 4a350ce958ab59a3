"""What a run refuses: one line that says why, exit status 2, and nothing written."""

from pathlib import Path

import pytest

from egra_dist.catalog.synth import SynthSettings, synthesize

CONFIG = Path("configs/default.yaml")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("refused") / "catalog"
    synthesize(SynthSettings(num_items=100, num_users=100, num_interactions=1000), folder)
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set=history.shares=[0.5]"], "has no times, which histories need"),
        (["--set=history.shares=[1.5]"], "history.shares.0 = 1.5"),
        (["--set=train.aligment.focus=hard"], "did you mean 'train.alignment'"),
        (["--stage=trian"], "stage 'trian' is not known"),
        (["--set=train.model.modalities=[smell]"], "no modality 'smell'"),
    ],
)
def test_mistakes_are_one_line_and_exit_status_2(refused, catalog, tmp_path, arguments, words):
    run = ("run", CONFIG, "--catalog", catalog, "--out", tmp_path / "r")
    assert words in refused(*run, *arguments)
    assert not list(tmp_path.glob("r/artifacts/*"))


def test_run_folder_that_cannot_be_written(refused, catalog, tmp_path):
    (tmp_path / "file").write_text("")
    run = ("run", CONFIG, "--catalog", catalog)
    assert "cannot be written" in refused(*run, "--out", tmp_path / "file" / "run")
