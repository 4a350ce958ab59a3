"""The command line called within the tests' own process, which has the libraries loaded."""

import sys
from collections.abc import Callable

import pytest


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
