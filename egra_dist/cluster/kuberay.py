"""Manifests for KubeRay, made from the settings of a cluster: what runs is what ``submit`` sends.

The settings travel in a ConfigMap, catalogues and run folders lie on a PersistentVolumeClaim, and
secrets (``MLFLOW_TRACKING_TOKEN``, ...) come from the Secret ``egra-secrets``, if there is one.
"""

import math
import shlex
from typing import Any

import yaml

from egra_dist.cluster.submission import CONFIG, Submission
from egra_dist.config import ClusterSettings

_SETTINGS = "/etc/egra"
_SECRETS = "egra-secrets"
_DEFAULT_CPUS = 4
_USER = 1000
_SECONDS_AFTER_END = 600
_HEAD_SHARED_MEMORY = "4Gi"
Manifest = dict[str, Any]


class _Dumper(yaml.SafeDumper):
    """Writes for readers: text as it stands, and nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _as_it_stands(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _as_it_stands)


def manifest(submission: Submission, as_job: bool = True) -> str:
    """A ConfigMap with the settings, and a RayJob that runs them or a RayCluster that waits.

    Args:
        submission: What to run.
        as_job: Whether the cluster comes with the job and goes with it.

    Returns:
        YAML for ``kubectl apply -f -``.
    """
    name = submission.name.lower().replace("_", "-").replace(".", "-")
    cluster = _cluster(submission, name)
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-settings"},
        "data": {CONFIG: submission.settings},
    }
    main = _job(submission, name, cluster) if as_job else _resource("RayCluster", name, cluster)
    return yaml.dump_all([settings, main], Dumper=_Dumper, sort_keys=False)


def _job(submission: Submission, name: str, cluster: Manifest) -> Manifest:
    spec = {
        "entrypoint": shlex.join(submission.command(f"{_SETTINGS}/{CONFIG}")),
        "backoffLimit": submission.config.cluster.kubernetes.retries,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": _SECONDS_AFTER_END,
        "metadata": {"egra_run": submission.name, "egra_digest": submission.digest},
        "rayClusterSpec": cluster,
    }
    return _resource("RayJob", name, spec)


def _resource(kind: str, name: str, spec: Manifest) -> Manifest:
    return {"apiVersion": "ray.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _cluster(submission: Submission, name: str) -> Manifest:
    from importlib.metadata import version

    settings = submission.config.cluster
    kubernetes = settings.kubernetes
    return {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": kubernetes.autoscale,
        "headGroupSpec": {
            # No task runs on the head: it must outlive the workers.
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
            "template": _pod(
                settings,
                name,
                {"cpu": str(kubernetes.head_cpus), "memory": kubernetes.head_memory},
                kubernetes.head_selector,
                _HEAD_SHARED_MEMORY,
            ),
        },
        "workerGroupSpecs": [_workers(settings, name)],
    }


def _workers(settings: ClusterSettings, name: str) -> Manifest:
    kubernetes = settings.kubernetes
    num_nodes = -(-settings.num_workers // kubernetes.workers_per_node)
    resources = _node_resources(settings)
    template = _pod(settings, name, resources, kubernetes.worker_selector, kubernetes.shared_memory)
    return {
        "groupName": "workers",
        "replicas": 0 if kubernetes.autoscale else num_nodes,
        "minReplicas": 0 if kubernetes.autoscale else num_nodes,
        "maxReplicas": num_nodes,
        "rayStartParams": {},
        "template": template,
    }


def _node_resources(settings: ClusterSettings) -> dict[str, str]:
    kubernetes = settings.kubernetes
    per_node = kubernetes.workers_per_node
    amount, unit = int(kubernetes.memory_per_worker[:-2]), kubernetes.memory_per_worker[-2:]
    resources = {
        "cpu": str((settings.cpus_per_worker or _DEFAULT_CPUS) * per_node),
        "memory": f"{amount * per_node}{unit}",
    }
    if settings.gpus_per_worker:
        resources["nvidia.com/gpu"] = str(math.ceil(settings.gpus_per_worker * per_node))
    return resources


def _pod(
    settings: ClusterSettings,
    name: str,
    resources: dict[str, str],
    selector: dict[str, str],
    shared_memory: str,
) -> Manifest:
    """A pod with one container; limits equal requests, so that no neighbour takes its memory."""
    kubernetes = settings.kubernetes
    container = {
        "name": "ray",
        "image": kubernetes.image,
        "env": [{"name": n, "value": v} for n, v in sorted(settings.environment.items())],
        "envFrom": [{"secretRef": {"name": _SECRETS, "optional": True}}],
        "resources": {"requests": resources, "limits": resources},
        "volumeMounts": [
            {"name": "storage", "mountPath": str(kubernetes.mount)},
            {"name": "settings", "mountPath": _SETTINGS},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }
    memory = {"medium": "Memory", "sizeLimit": shared_memory}
    volumes = [
        {"name": "storage", "persistentVolumeClaim": {"claimName": kubernetes.claim}},
        {"name": "settings", "configMap": {"name": f"{name}-settings"}},
        {"name": "shared-memory", "emptyDir": memory},
    ]
    spec: Manifest = {
        "securityContext": {"runAsUser": _USER, "runAsNonRoot": True, "fsGroup": _USER},
        "containers": [container],
        "volumes": volumes,
    }
    if selector:
        spec["nodeSelector"] = selector
        spec["tolerations"] = [{"key": key, "operator": "Exists"} for key in selector]
    return {"spec": spec}
