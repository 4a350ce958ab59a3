"""Runs that share their artifacts make what is equal once."""

import json

import pytest

from egra_dist.catalog.synth import SynthSettings, synthesize
from egra_dist.config import parse_config
from egra_dist.tracking.client import open_client
from egra_dist.workspace import ARTIFACTS, Workspace


@pytest.fixture
def catalog(tmp_path):
    settings = SynthSettings(num_items=60, num_users=40, num_interactions=200)
    return synthesize(settings, tmp_path / "catalog")


def build_in(catalog, run, k, made, artifacts=None):
    config = parse_config({"tracking": {"uri": f"sqlite:///{run.parent}/mlflow.db"}})
    with Workspace(config, catalog, run, artifacts=artifacts, tags={"team": "a"}) as workspace:
        return workspace.build("knn", {"k": k}, {}, lambda folder, _: made.append(k) or {})


def names_tagged(folder):
    client = open_client(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("egra").experiment_id
    return {run.info.run_name for run in client.search_runs([experiment], "tags.team = 'a'")}


def test_runs_share_the_artifacts_of_equal_recipes(catalog, tmp_path):
    made: list[int] = []
    shared = tmp_path / "shared"
    first = build_in(catalog, tmp_path / "a", 5, made, shared)
    second = build_in(catalog, tmp_path / "b", 5, made, shared)
    other = build_in(catalog, tmp_path / "b", 6, made, shared)
    own = build_in(catalog, tmp_path / "c", 5, made)
    assert made == [5, 6, 5]
    assert first.folder == second.folder != other.folder
    assert {path.name for path in shared.iterdir()} == {first.folder.name, other.folder.name}
    assert own.folder.parent == tmp_path / "c" / "artifacts"
    stages = {"a/knn", "b/knn", "c/knn"}  # filtered by what their runs are
    assert names_tagged(tmp_path) == {"a", "b", "c"} | stages
    places = json.loads((tmp_path / "b" / ARTIFACTS).read_text())
    assert places == {"catalog": str(catalog.path.resolve()), "knn": str(other.folder)}


def test_a_call_that_stops_early_forgets_nothing_of_the_same_run(catalog, tmp_path):
    def places():
        return json.loads((tmp_path / "a" / ARTIFACTS).read_text())

    def stop_early(**settings):
        config = parse_config({"tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"}, **settings})
        with Workspace(config, catalog, tmp_path / "a", tags={"team": "a"}) as workspace:
            workspace.build("graphs", {}, {}, lambda folder, _: {})

    build_in(catalog, tmp_path / "a", 5, [])
    known = places()
    stop_early()
    assert places().items() > known.items()
    stop_early(seed=1)
    assert places().keys() == {"catalog", "graphs"}
