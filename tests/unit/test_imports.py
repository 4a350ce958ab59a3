"""Rooms import in one direction, and heavy libraries come only when they are used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
HEAVY = ("torch", "ray", "mlflow", "torchrec", "pandas", "matplotlib", "faiss", "sklearn")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).parent / "lint-imports", "--no-logo", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def copy_of_package(folder: Path) -> Path:
    shutil.copytree(REPOSITORY / "egra_dist", folder / "egra_dist")
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    return folder


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("catalog/wrong.py", "import egra_dist.graph.csr", "imports run one way"),
        ("config.py", "import egra_dist.tracking.noise", "imports run one way"),
        ("tracking/wrong.py", "def f():\n    import ray.train", "import Ray"),
        ("graph/wrong.py", "import ray", "import Ray"),
        ("model/wrong.py", "from torchrec import KeyedJaggedTensor", "import TorchRec"),
    ],
)
def test_an_import_against_the_rules_is_found(tmp_path, module, line, contract):
    folder = copy_of_package(tmp_path)
    with (folder / "egra_dist" / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint_imports(folder)
    assert done.returncode == 1
    broken = [line for line in done.stdout.splitlines() if "BROKEN" in line]
    assert len(broken) == 1, done.stdout
    assert contract in broken[0]


@pytest.mark.parametrize(
    "module",
    [
        "egra_dist.config",
        "egra_dist.catalog.catalog",
        "egra_dist.plan.plan",
        "egra_dist.cli",
        "egra_dist.cluster.session",
        "egra_dist.cluster.doctor",
        "egra_dist.tracking.noise",
    ],
)
def test_light_modules_bring_no_heavy_library(module):
    code = f"import sys, {module}; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
