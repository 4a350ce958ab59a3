import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from egra_dist.cluster import local
from egra_dist.cluster.local import started_ray
from egra_dist.errors import UserError

SLOW = Exception("The current node timed out during startup. This could happen because ...")
SLEEP = "import time; time.sleep(600)"


class Ray:
    """Stands in for Ray: each start leaves a process, and fails as told."""

    def __init__(self, *failures):
        self.failures, self.folders, self.processes = list(failures), [], []

    def init(self, _temp_dir, **options):
        self.folders.append(Path(_temp_dir))
        self.processes.append(subprocess.Popen([sys.executable, "-c", SLEEP, f"{_temp_dir}/logs"]))
        if self.failures:
            raise self.failures.pop(0)

    def shutdown(self):
        """Does not know of a start that has failed, as the real one."""

    def num_alive(self):
        return sum(psutil.pid_exists(process.pid) for process in self.processes)


@pytest.fixture
def ray(monkeypatch, request):
    stand_in = Ray(*getattr(request, "param", ()))
    for name in ("init", "shutdown"):
        monkeypatch.setattr(f"ray.{name}", getattr(stand_in, name))
    return stand_in


@pytest.mark.parametrize(
    "ray", [(SLOW, RuntimeError("Failed to start GCS. Last 0"))], indirect=True
)
def test_a_start_that_took_too_long_is_tried_again_from_nothing(ray, caplog):
    with started_ray(2, {}):
        first, second, third = ray.folders
        assert third.exists()
        assert not first.exists()
        assert not second.exists()
        assert ray.num_alive() == 1
    assert not third.exists()
    assert ray.num_alive() == 0
    assert caplog.text.count("trying again") == 2


@pytest.mark.parametrize("ray", [[SLOW] * 9], indirect=True)
def test_a_machine_too_busy_for_ray_is_named(ray):
    with (
        pytest.raises(UserError, match=r"3 times.*busy.*timed out during startup"),
        started_ray(2, {}),
    ):
        pass
    assert len(ray.folders) == 3
    assert not any(folder.exists() for folder in ray.folders)
    assert ray.num_alive() == 0


@pytest.mark.parametrize("ray", [[ValueError("no such option")]], indirect=True)
def test_other_errors_are_not_tried_again(ray):
    with pytest.raises(ValueError, match="no such option"), started_ray(2, {}):
        pass
    assert len(ray.folders) == 1
    assert ray.num_alive() == 0


def test_what_goes_wrong_in_a_session_is_not_tried_again(ray):
    with pytest.raises(RuntimeError, match="timed out during startup"), started_ray(2, {}):
        raise RuntimeError("timed out during startup")
    assert len(ray.folders) == 1


def test_the_temporary_folder_leaves_room_for_the_name_of_a_socket(monkeypatch):
    monkeypatch.setattr(local.tempfile, "gettempdir", lambda: "/tmp/" + "long" * 20)
    assert local._short_temporary_folder() == "/tmp"
    monkeypatch.setattr(local.tempfile, "gettempdir", lambda: "/scratch")
    assert local._short_temporary_folder() == "/scratch"
