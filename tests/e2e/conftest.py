"""The command line called within the tests' own process, which has the libraries loaded."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.documents import REPOSITORY, blocks


@pytest.fixture
def refused(capsys, monkeypatch) -> Callable[..., str]:
    """Calls the command line with what it is to refuse; returns the one line that says why."""
    from egra_dist.cli import main

    def call(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["egra-dist", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        written = capsys.readouterr()
        assert (end.value.code, written.out) == (2, "")
        (line,) = written.err.splitlines()
        assert line.startswith("egra-dist: error: ")
        return line

    return call


@pytest.fixture(scope="session")
def shop(tmp_path_factory, local_ray) -> Path:
    """The folder of a reader who has followed the quickstart; what was printed is as it says."""
    from tests.e2e.illustrations import NOT_RUN, RUN_LATER, SHORT
    from tests.reader import Reader

    folder = tmp_path_factory.mktemp("shop")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    short = {"^egra-dist run ": SHORT}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        reader = Reader(folder, {}, short, {*NOT_RUN, *RUN_LATER}, compares=True)
        for block in blocks(REPOSITORY / "docs" / "quickstart.md"):
            reader.do(block)
    return folder
