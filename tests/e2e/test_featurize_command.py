"""The verb ``featurize``, as a user calls it; what it computes is tested with Ray elsewhere."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


def egra_dist(*arguments):
    command = [sys.executable, "-c", "from egra_dist.cli import main; main()", "featurize"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def items(tmp_path):
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": ["a", "b"], "title": ["One", "Two"]}), path)
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give one of --text TEMPLATE and --image COLUMN"),
        (["--text", "title", "--image", "title"], "give one of --text TEMPLATE and --image"),
        (["--text", "name"], "items.parquet: no column 'name'; its columns are ['item_id', 'ti"),
        (["--text", "title", "--item-id", "id"], "items.parquet: no column 'id'"),
        (["--text", "title"], "--encoder no_such_module:factory: cannot be imported: No module"),
    ],
)
def test_refused(tmp_path, items, options, message):
    out = tmp_path / "out"
    done = egra_dist(items, *options, "--encoder", "no_such_module:factory", "--out", out)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("egra-dist: error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == [items]


def test_other_files_are_left_alone(tmp_path, items):
    done = egra_dist(items, "--text", "title", "--encoder", "a:b", "--out", tmp_path)
    assert "holds other files and no features; give a new or empty folder" in done.stderr


def test_help_has_examples():
    words = " ".join(egra_dist("--help").stdout.split())
    assert "Example: egra-dist featurize items.parquet --text title" in words
    assert "ingest events clicks.parquet" in words
