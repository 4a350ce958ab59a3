"""Every command and every block of code of README and docs is run, by a reader who has the shop.

What stands for what a page has for illustration, how trainings and benchmarks are cut short, and
what is not run and why: ``illustrations.py``.
"""

import json
import shlex
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace

import pytest
import yaml

from egra_dist.config import Config
from tests.clusters import LocalCluster
from tests.e2e.desks import lay_out
from tests.e2e.documents import PAGES, REPOSITORY, Command, blocks, commands, whole_commands
from tests.e2e.illustrations import ADDED, FOLLOWED, NOT_RUN, REPLACED, RUN_LATER
from tests.object_store import object_store
from tests.reader import PROGRAMS, Reader, without_variables

COUNTS = ["--users", "900", "--items", "500", "--interactions", "9000"]
COUNTS += ["--modality", "image:8", "--modality", "text:8"]
DONE: set[str] = set()
"""What one page has run for all that say the same."""


def commands_of(page) -> list[Command]:
    shown = [c for block in blocks(page) if block.kind == "console" for c in commands(block)]
    return [*shown, *whole_commands(page)]


def test_every_command_is_run_or_it_is_said_why_not():
    parts = {shlex.join(part) for page in PAGES for c in commands_of(page) for part in c.parts}
    programs = {without_variables(shlex.split(part))[1][0] for part in parts - NOT_RUN.keys()}
    assert programs <= set(PROGRAMS)
    assert NOT_RUN.keys() <= parts, "not run, and in no page"
    assert set(RUN_LATER) <= parts


@pytest.fixture(scope="module")
def cluster():
    """Starts a cluster of one machine when first asked."""
    with ExitStack() as stack:
        found = []

        def get() -> LocalCluster:
            if not found:
                found.append(stack.enter_context(LocalCluster(4, quick=False)))
            return found[0]

        yield get


@pytest.fixture(scope="module", autouse=True)
def tree():
    """The tree is not written to."""

    def state() -> str:
        command = ["git", "-C", str(REPOSITORY), "status", "--porcelain"]
        return subprocess.run(command, capture_output=True, text=True).stdout

    before = state()
    yield
    assert state() == before


@pytest.fixture
def reader(shop, cluster, tmp_path, monkeypatch):
    """Gives the reader of a page."""
    folder = tmp_path / "reader"
    with ExitStack() as stack:

        def open_page(page) -> Reader:
            lay_out(shop, folder, page)
            monkeypatch.chdir(folder)
            monkeypatch.setattr(sys, "path", list(sys.path))
            replaced = {**REPLACED, "/mnt/egra": str(folder / "mnt")}
            if page.name == "storage.md":
                replaced |= stored(stack.enter_context(object_store("shop")), folder)
            found = Reader(folder, replaced, ADDED, NOT_RUN, cluster=cluster, done=DONE)
            stack.callback(lambda: found.end(*list(found.servers)))
            return found

        yield open_page


def stored(uri, folder):
    """Puts the catalogue into an object store; leads the page's URIs there."""
    from egra_dist.storage import Storage

    made = folder / "catalogs" / "may"
    Storage(uri("catalogs/may")).push(made, [p for p in made.rglob("*") if p.is_file()])
    there = uri(r"\1")  # quoted in a command, as it has an ampersand
    return {r" s3://shop/([\w/]+)": f" '{there}'", r'"s3://shop/([\w/]+)': f'"{there}'}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_page(page, reader):
    reader = reader(page)
    for block in blocks(page):
        if page.name in FOLLOWED:
            for command in commands(block) if block.kind == "console" else ():
                if command.text in RUN_LATER:
                    reader.call(replace(command, output=[]))
        elif block.kind == "json" and not block.title:
            assert shape(json.loads(reader.answers.pop())) == shape(json.loads(block.text))
        elif block.kind == "yaml" and not block.title:
            plan(reader, block)
        else:
            reader.do(block)
    for command in whole_commands(page):
        reader.call(command)


def plan(reader, block):
    """What settings in a page lead to can be planned."""
    if yaml.safe_load(block.text).keys() <= Config.model_fields.keys():
        (reader.folder / "shown.yaml").write_text(block.text)
        status, printed = reader.run(["egra-dist", "plan", "shown.yaml", *COUNTS])
        assert status == 0, f"{block}\n{printed}"


def shape(answer):
    """An answer but for figures that a short training does not reach."""
    if isinstance(answer, dict):
        is_exact = answer.get("source") == "popularity"
        return answer if is_exact else {key: shape(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [shape(value) for value in answer]
    return answer if answer in ("user", "items", "popularity") else type(answer)
