"""Pages that a reader follows step by step: their commands are run, in one folder, in order.

What they print is compared with what the page says, but for durations; trainings are cut short.
"""

import ast
import json
import re
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from egra_dist.manifest import read_manifest
from tests.e2e.documents import REPOSITORY, blocks
from tests.e2e.illustrations import NOT_RUN, SHORT
from tests.reader import Reader, run_here
from tests.served import serving

DOCS = REPOSITORY / "docs"


@pytest.fixture(autouse=True)
def here(shop, monkeypatch):
    """The reader stays in the folder of the quickstart."""
    monkeypatch.chdir(shop)
    monkeypatch.setattr(sys, "path", list(sys.path))


def follow(name: str) -> None:
    """Does what a page says, and compares what is printed with it."""
    reader = Reader(Path.cwd(), {}, {"^egra-dist run ": SHORT}, NOT_RUN, compares=True)
    for block in blocks(DOCS / name):
        reader.do(block)


def test_quickstart(shop):
    ids = pq.read_table(shop / "runs/first/export/items")["raw_id"].to_pylist()
    assert set(ids) == set(pq.read_table(shop / "items.parquet")["item"].to_pylist())
    first, easy = (
        {p.name for p in shop.glob(f"runs/{name}/artifacts/*")} for name in ("first", "easy")
    )
    assert not easy, "results of stages are shared"
    assert sum(name.startswith("train-") for name in first) == 2
    assert sum(name.startswith("pretrain-") for name in first) == 1


def test_what_is_served_is_what_the_command_recommends(shop, tmp_path):
    users = [f"customer-{number}" for number in (0, 17, 1499)]
    with serving(shop / "runs/first/export/model", tmp_path / "server.log") as client:
        answers = client.ask(*({"user_id": user} for user in users), k=7)
    for user, served in zip(users, answers, strict=True):
        options = ["--user", user, "-k", "7", "--json"]
        status, printed = run_here(["egra-dist", "recommend", "runs/first", *options])
        recommended = json.loads(printed)
        assert (status, recommended["source"], served["source"]) == (0, "user", "user")
        assert [item["item"] for item in recommended["items"]] == served["items"]
        assert [item["score"] for item in recommended["items"]] == served["scores"]


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
