"""``egra-dist knn`` as a user calls it."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from egra_dist.cli.knn import register
from egra_dist.errors import UserError
from egra_dist.graph.csr import Csr
from egra_dist.graph.knn import KnnGraph


@pytest.fixture
def run():
    app = typer.Typer()
    register(app)
    app.command()(lambda: None)  # a second verb, so that the first keeps its name

    def call(*arguments):
        return CliRunner().invoke(
            app, ["knn", *map(str, arguments)], catch_exceptions=False, standalone_mode=False
        )

    return call


def vectors_of(num_rows, seed=0):
    return np.random.default_rng(seed).standard_normal((num_rows, 16)).astype(np.float32)


def test_a_graph_is_written_with_its_recall(run, tmp_path):
    np.save(tmp_path / "vectors.npy", vectors_of(800))
    result = run(tmp_path / "vectors.npy", "--k", 5, "--out", tmp_path / "graph")
    assert "4,000 edges" in result.stdout
    assert "recall: 1.0" in result.stdout
    manifest = json.loads((tmp_path / "graph" / "manifest.json").read_text())
    assert manifest["kind"] == "knn"
    assert manifest["counts"]["method"] == "exact"
    graph = KnnGraph.load(tmp_path / "graph")
    edges = pq.read_table(tmp_path / "graph" / "edges")
    assert edges["neighbor"].to_pylist() == graph.neighbors.ravel().tolist()
    assert Csr.load(tmp_path / "graph" / "csr").num_entries == 4000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph", "vectors.npy"]


def test_two_modalities_with_raw_ids_and_missing_rows(run, tmp_path):
    names = [f"item-{row}" for row in range(300)]
    for number, name in enumerate(("image", "text")):
        rows = [row.tolist() for row in vectors_of(300, seed=number)]
        rows[number] = None
        table = pa.table({"id": names, "vector": pa.array(rows, pa.list_(pa.float32()))})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    tables = [tmp_path / "image.parquet", tmp_path / "text.parquet"]
    options = ["--id", "id", "--combine", "union", "--k", 4, "--weight", 0.7, "--weight", 0.3]
    run(*tables, *options, "--out", tmp_path / "graph")
    edges = pq.read_table(tmp_path / "graph" / "edges").to_pydict()
    assert edges["item"].count("item-0") == 4
    assert set(edges["neighbor"]) <= set(names)


def test_a_graph_is_extended(run, tmp_path):
    vectors = vectors_of(1200)
    np.save(tmp_path / "first.npy", vectors[:1000])
    np.save(tmp_path / "all.npy", vectors)
    run(tmp_path / "first.npy", "--out", tmp_path / "first")
    result = run(tmp_path / "all.npy", "--out", tmp_path / "all", "--append-to", tmp_path / "first")
    assert "12,000 edges" in result.stdout


def test_mistakes_are_one_line(run, tmp_path):
    np.save(tmp_path / "flat.npy", np.zeros(5, np.float32))
    with pytest.raises(UserError, match="no such file"):
        run(tmp_path / "none.npy", "--out", tmp_path / "graph")
    with pytest.raises(UserError, match="expected \\[rows, dim\\] of floats"):
        run(tmp_path / "flat.npy", "--out", tmp_path / "graph")
    with pytest.raises(UserError, match=r"--recall 1\.5"):
        run(tmp_path / "flat.npy", "--recall", 1.5, "--out", tmp_path / "graph")
