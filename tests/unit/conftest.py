"""An MLflow database per test, copied from one that is made once: making one takes seconds."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from egra_dist.tracking.client import open_client

    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    open_client(f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def uri(tmp_path: Path, empty_database: Path) -> str:
    """A store of its own."""
    return f"sqlite:///{shutil.copy(empty_database, tmp_path / 'mlflow.db')}"


@pytest.fixture
def run_folder(tmp_path: Path, empty_database: Path) -> Path:
    """A run folder with its default store."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    return folder


@pytest.fixture
def new_run(uri: str) -> Callable[[], str]:
    """Makes runs."""
    from egra_dist.tracking.client import open_client

    client = open_client(uri)
    return lambda: client.create_run("0").info.run_id
