"""Each stage has an entry point for Ray's own command, and the pipeline has one."""

import runpy
import sys

import pytest

from egra_dist.config import STAGES
from tests.conftest import REPOSITORY

LAST = STAGES[-1]


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_has_a_job_that_takes_the_arguments_of_run(stage, monkeypatch):
    name = "pipeline" if stage == LAST else stage
    given = []
    monkeypatch.setattr("egra_dist.cli.main", given.append)
    monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", "some.yaml", "--out", "somewhere"])
    runpy.run_path(str(REPOSITORY / "jobs" / f"{name}.py"))
    assert given == [["run", "some.yaml", "--out", "somewhere", "--stage", stage]]
