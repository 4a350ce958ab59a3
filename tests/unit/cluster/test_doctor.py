from dataclasses import replace

import pytest

from egra_dist.cluster.doctor import MATCHING, examine
from egra_dist.cluster.machine import Kernels, Machine, try_kernels

GIB = 1 << 30
HEALTHY = Machine(
    python=(3, 11),
    versions={
        "torch": "2.13.0+cpu",
        "torchrec": "1.8.0",
        "fbgemm-gpu-cpu": "1.8.0",
        "ray": "2.60.0",
        "mlflow": "3.17.2",
        "scipy": "1.17.1",
    },
    requirements=(
        "torch==2.13.0",
        "torchrec==1.8.0",
        "ray[default,train]==2.60.0",
        "mlflow<4,>=3.13",
        "scipy",
        'pytest; extra == "dev"',
        'colorama; sys_platform == "win32"',
    ),
    kernels=Kernels(num_threads=8),
    gpus=(),
    num_cpus=8,
    memory=32 * GIB,
    shared_memory=16 * GIB,
    open_files=65536,
)


def versions(**changes: str | None) -> dict[str, str]:
    merged = HEALTHY.versions | {name.replace("_", "-"): v for name, v in changes.items()}
    return {name: version for name, version in merged.items() if version is not None}


def test_a_healthy_machine_has_no_advice():
    findings = examine(HEALTHY)
    assert {finding.status for finding in findings} == {"ok"}
    assert {finding.advice for finding in findings} == {""}
    assert {"python", "kernels", "ray", "mlflow", "gpus", *MATCHING} <= {f.name for f in findings}


def test_a_healthy_machine_with_gpus():
    machine = replace(
        HEALTHY,
        versions=versions(torch="2.13.0", fbgemm_gpu="1.8.0", fbgemm_gpu_cpu=None),
        gpus=("NVIDIA H100",),
        kernels=Kernels(num_gpus=1, num_threads=8),
    )
    assert {finding.status for finding in examine(machine)} == {"ok"}


@pytest.mark.parametrize(
    ("change", "name", "status", "words"),
    [
        ({"python": (3, 12)}, "python", "problem", "use Python 3.11"),
        ({"versions": versions(torch="2.14.1")}, "torch", "problem", "2.13.0 goes with"),
        ({"versions": versions(torch="2.13.0+cu130")}, "torch", "ok", ""),
        ({"versions": versions(torchrec="1.9.0")}, "torchrec", "problem", "1.8.0 goes with"),
        ({"versions": versions(torchrec=None)}, "torchrec", "problem", "make install"),
        ({"versions": versions(fbgemm_gpu_cpu=None)}, "fbgemm-gpu", "problem", "make install"),
        ({"versions": versions(fbgemm_gpu_cpu="1.9.0")}, "fbgemm-gpu", "problem", "1.8.0"),
        ({"versions": versions(fbgemm_gpu="1.8.0")}, "fbgemm-gpu", "problem", "uninstall both"),
        ({"versions": versions(ray="2.61.0")}, "ray", "problem", "ray==2.60.0 is needed"),
        ({"versions": versions(mlflow="2.9.0")}, "mlflow", "problem", "mlflow<4,>=3.13"),
        ({"versions": versions(scipy=None)}, "scipy", "problem", "scipy is needed"),
        ({"kernels": Kernels("undefined symbol")}, "kernels", "problem", "must match"),
        ({"gpus": ("NVIDIA H100",)}, "gpus", "warning", "VARIANT=cuda"),
        ({"kernels": Kernels(num_gpus=1)}, "gpus", "problem", "VARIANT=cuda"),
        ({"num_cpus": 2}, "cpus", "warning", "OMP_NUM_THREADS"),
        ({"memory": 2 * GIB, "shared_memory": GIB}, "memory", "warning", "small catalogues"),
        ({"shared_memory": GIB // 16}, "/dev/shm", "warning", "--shm-size=9.6g"),
        ({"shared_memory": None}, "/dev/shm", "ok", ""),
        ({"open_files": 1024}, "open files", "warning", "ulimit -n"),
        ({"open_files": -1}, "open files", "ok", ""),
    ],
)
def test_each_defect_is_named_with_what_to_do(change, name, status, words):
    findings = examine(replace(HEALTHY, **change))
    changed = {f.name: f for f in findings if f.status != "ok"}
    assert list(changed) == ([] if status == "ok" else [name])
    found = next(finding for finding in findings if finding.name == name)
    assert found.status == status
    assert words in found.advice


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("import sys; sys.exit('no such operator')", "no such operator"),
        ("import os; os.abort()", "exit status -6"),
        ("raise OSError('undefined symbol: _ZN')", "OSError: undefined symbol: _ZN"),
        ("print('[2, 5]')", ""),
    ],
)
def test_kernels_are_tried_where_they_may_crash(code, failure):
    kernels = try_kernels(code)
    assert kernels.failure == failure
    if not failure:
        assert (kernels.num_gpus, kernels.num_threads) == (2, 5)
