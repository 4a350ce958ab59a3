"""Pages that a reader follows step by step: their commands are run, in one folder, in order.

What they print is compared with what the page says, but for durations; trainings are cut short.
"""

import ast
import re
import runpy
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pyarrow.parquet as pq
import pytest

from egra_dist.artifact import read_manifest
from egra_dist.cli import main
from tests.e2e.documents import REPOSITORY, blocks, commands

DOCS = REPOSITORY / "docs"
SHORT = ["--set", "pretrain.max_epochs=1", "--set", "train.max_epochs=1"]
NOT_RUN = {
    "make install": "it has been, or no test would run",
    "source .venv/bin/activate": "the same",
    "egra-dist demo": "takes minutes; its stages are those of a run",
    "mlflow ui --backend-store-uri sqlite:///runs/first/mlflow.db": "it would not end",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, local_ray):
    """Where the reader is; the pages find the shipped configurations there."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("reader")
        (path / "configs").symlink_to(REPOSITORY / "configs")
        patch.chdir(path)
        patch.setattr(sys, "path", list(sys.path))
        yield path


@pytest.fixture(scope="module")
def shop(folder):
    follow("quickstart.md")
    return folder


def follow(name: str) -> None:
    """Does what a page says: writes its files, runs its commands and its code."""
    for block in blocks(DOCS / name):
        if block.title:
            (REPOSITORY.__class__.cwd() / block.title).write_text(block.text)
        elif block.kind == "python":
            exec(compile(block.text, str(block), "exec"), {})
        elif block.kind == "console":
            for command in commands(block):
                if command.text not in NOT_RUN:
                    call(command)


def call(command) -> None:
    """Runs a command in this process and compares what it prints with what the page says."""
    (words,) = command.parts
    is_training = words[:2] == ["egra-dist", "run"] and "error: " not in "".join(command.output)
    status, printed = run(words + (SHORT if is_training else []))
    where = f"{command.block}: {shlex.join(words)}\n{printed}"
    assert status == (2 if "error: " in "".join(command.output) else 0), where
    if not is_training:
        said = [without_durations(line) for line in command.output]
        assert [line for line in said if line and line not in without_durations(printed)] == [], (
            where
        )


def run(words: list[str]) -> tuple[int, str]:
    program, *rest = words
    printed = StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        if program == "python":
            runpy.run_path(rest[0], run_name="__main__")
            return 0, printed.getvalue()
        assert program == "egra-dist", words
        try:
            main(rest)
        except SystemExit as end:
            return int(end.code or 0), printed.getvalue()
    return 0, printed.getvalue()


def without_durations(text: str) -> str:
    return re.sub(r"\d+(\.\d+)? s\b", "", text)


def test_quickstart(shop):
    ids = pq.read_table(shop / "runs/first/export/items")["raw_id"].to_pylist()
    assert set(ids) == set(pq.read_table(shop / "items.parquet")["item"].to_pylist())
    first, easy = (
        {p.name for p in shop.glob(f"runs/{name}/artifacts/*")} for name in ("first", "easy")
    )
    assert not easy, "results of stages are shared"
    assert sum(name.startswith("train-") for name in first) == 2
    assert sum(name.startswith("pretrain-") for name in first) == 1


def test_the_picture_of_the_pipeline_is_what_a_run_has_done(shop):
    from docs.make.pictures import INPUTS

    for stage in ("pretrain", "knn", "merge", "train"):
        path = next(shop.glob(f"runs/first/artifacts/{stage}-*"))
        assert set(INPUTS[stage]) <= set(read_manifest(path, stage).inputs)


def test_extending(shop):
    follow("extend.md")
    (pretrained,) = shop.glob("runs/mine/artifacts/pretrain-*")
    settings = read_manifest(pretrained, "pretrain").settings
    assert settings["model"]["name"] == "my_models:Content"
    assert len(settings["my_models:Content"]) == 16
    (trained,) = shop.glob("runs/mine/artifacts/train-*")
    assert "my_ramps:late" in read_manifest(trained, "train").settings
    assert not list(shop.glob("runs/svd/artifacts/pretrain-*"))
    (neighbors,) = shop.glob("runs/svd/artifacts/knn-*")
    assert read_manifest(neighbors, "knn").counts["num_edges"] > 0


def test_troubleshooting(shop):
    follow("troubleshooting.md")


def test_messages_that_are_not_provoked_here_stand_in_the_code():
    known = [re.compile(pattern) for pattern in messages()]
    shown = [
        line
        for block in blocks(DOCS / "troubleshooting.md")
        if block.kind == "text"
        for line in block.text.splitlines()
    ]
    assert len(shown) > 3
    assert [line for line in shown if not any(one.fullmatch(line) for one in known)] == []


def messages() -> set[str]:
    """Every text of the package that may be a message, as a pattern, its values left open."""
    found = set()
    for path in (REPOSITORY / "egra_dist").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts = [part.value if isinstance(part, ast.Constant) else None for part in parts]
            if sum(len(text) for text in texts if isinstance(text, str)) > 15:
                pattern = "".join(re.escape(t) if isinstance(t, str) else ".+" for t in texts)
                found.add(pattern.replace("%s", ".+"))
    return found
