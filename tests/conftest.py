"""What all tests share: real data where it lies, one Ray for all, few threads."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
# Else Ray's workers give way to whatever other tests compute, and hardly get on.
os.environ.setdefault("RAY_worker_niceness", "0")
# Of the object store that tests start; never anybody's own.
os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}

# Machines are busy: how long an example takes says nothing.
settings.register_profile("egra", deadline=None)
settings.load_profile("egra")

REPOSITORY = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--share", help="K/N: every N-th of the chosen tests, from the K-th on")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the share that was asked for of what the other options chose."""
    if share := config.getoption("--share"):
        one, of = map(int, share.split("/"))
        if not 1 <= one <= of:
            raise pytest.UsageError(f"--share {share}: K/N with K from 1 to N")
        left = [item for place, item in enumerate(items) if place % of != one - 1]
        config.hook.pytest_deselected(items=left)
        items[:] = items[one - 1 :: of]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of the real data sets: EGRA_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("EGRA_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set EGRA_DATA to where it is")
    return folder


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray on this machine with room for four workers, started once."""
    from egra_dist.cluster.session import ray_session
    from egra_dist.config import ClusterSettings

    with ray_session(ClusterSettings(num_workers=4)):
        yield


@pytest.fixture(scope="session")
def swept(local_ray, tmp_path_factory):
    """A finished search of three trainings, see :mod:`tests.small_sweep`."""
    from tests.small_sweep import run_small_sweep

    return run_small_sweep(tmp_path_factory.mktemp("sweep"))
