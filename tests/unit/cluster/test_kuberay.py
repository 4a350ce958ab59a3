"""Manifests for KubeRay, checked against the schemas of its resources."""

import gzip
import os
from pathlib import Path

import jsonschema
import pytest
import yaml

from egra_dist.cluster.kuberay import manifest
from egra_dist.cluster.submission import Submission
from egra_dist.config import load_config, parse_config
from tests.conftest import REPOSITORY

SHIPPED = sorted((REPOSITORY / "jobs" / "kuberay").glob("*.yaml"))


@pytest.fixture(scope="module")
def schemas():
    """The schemas by kind, made strict: a field that Kubernetes would drop is an error."""
    folder = Path(os.environ.get("EGRA_KUBERAY") or REPOSITORY.parent / "shared" / "kuberay")
    if not folder.is_dir():
        pytest.skip(f"no resource definitions in {folder}; set EGRA_KUBERAY to where they are")
    found = {}
    for file in folder.glob("*.yaml.gz"):
        definition = yaml.load(gzip.decompress(file.read_bytes()), yaml.CSafeLoader)
        version = next(v for v in definition["spec"]["versions"] if v["name"] == "v1")
        kind = definition["spec"]["names"]["kind"]
        found[kind] = strict(version["schema"]["openAPIV3Schema"])
    return found


def strict(schema):
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        schema["additionalProperties"] = False
    return schema


def resources(text):
    settings, main = yaml.safe_load_all(text)
    return settings, main


def made(as_job=True, **cluster):
    config = parse_config({"cluster": cluster})
    run = Submission("My_run.1", config, Path("/mnt/egra/catalog"), Path("/mnt/egra/run"))
    return resources(manifest(run, as_job))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_manifests_are_what_their_command_makes_and_fit_the_schema(path, schemas):
    command = path.read_text().splitlines()[0].removeprefix("# ").split()
    files = [REPOSITORY / command[2], REPOSITORY / command[command.index("--cluster") + 1]]
    catalog, out = (Path(command[command.index(name) + 1]) for name in ("--catalog", "--out"))
    run = Submission(out.name, load_config(files[0], [], files[1]), catalog, out)
    text = manifest(run, as_job=command[-1] == "--kuberay")
    assert path.read_text() == f"# {' '.join(command)}\n{text}"
    _, main = resources(text)
    # `metadata` is Kubernetes' own, which the schema leaves open.
    main["metadata"] = {}
    schema = schemas[main["kind"]]
    schema["properties"]["metadata"].pop("additionalProperties", None)
    jsonschema.validate(main, schema)


def test_schema_refuses_what_it_does_not_know(schemas):
    _, main = made()
    main["metadata"] = {}
    main["spec"]["rayClusterSpec"]["workerGroups"] = []
    with pytest.raises(jsonschema.ValidationError, match="workerGroups"):
        jsonschema.validate(main, schemas["RayJob"])


def test_settings_of_the_job_are_the_ones_given():
    settings, job = made(num_workers=3)
    sent = yaml.safe_load(settings["data"]["config.yaml"])
    assert parse_config(sent).cluster.num_workers == 3
    assert job["spec"]["entrypoint"].startswith("python -m egra_dist run /etc/egra/config.yaml ")
    assert job["metadata"]["name"] == "my-run-1"


def test_nodes_hold_the_workers_and_all_they_need():
    kubernetes = {"workers_per_node": 4, "memory_per_worker": "8Gi"}
    _, job = made(num_workers=10, cpus_per_worker=3, gpus_per_worker=0.5, kubernetes=kubernetes)
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert (group["replicas"], group["maxReplicas"]) == (3, 3)
    container = group["template"]["spec"]["containers"][0]
    expected = {"cpu": "12", "memory": "32Gi", "nvidia.com/gpu": "2"}
    assert container["resources"] == {"requests": expected, "limits": expected}


def test_autoscaled_workers_may_be_gone_and_the_head_stays():
    kubernetes = {
        "autoscale": True,
        "head_selector": {"pool": "stays"},
        "worker_selector": {"spot": "yes"},
    }
    _, cluster = made(as_job=False, num_workers=2, kubernetes=kubernetes)
    assert cluster["kind"] == "RayCluster"
    spec = cluster["spec"]
    head, group = spec["headGroupSpec"], spec["workerGroupSpecs"][0]
    assert (group["minReplicas"], group["maxReplicas"]) == (0, 2)
    assert spec["enableInTreeAutoscaling"] and head["rayStartParams"]["num-cpus"] == "0"
    assert head["template"]["spec"]["nodeSelector"] == {"pool": "stays"}
    tolerated = group["template"]["spec"]["tolerations"]
    assert tolerated == [{"key": "spot", "operator": "Exists"}]
