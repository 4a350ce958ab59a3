"""The MLflow client: made in one place, after its environment, its database once."""

import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from egra_dist.errors import UserError
from egra_dist.tracking.noise import quiet_environment

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE_FILE = "mlflow.db"
_SQLITE = "sqlite:///"
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")

# As SQLAlchemy reads it: a database's password may hold slashes.
_OF_DATABASE = re.compile(r"^([a-z][a-z0-9+.-]*://)[^:/@]*(?::.*)?@", re.IGNORECASE)


def default_uri(run_folder: Path) -> str:
    """The store that a run has for itself."""
    return f"{_SQLITE}{run_folder.absolute()}/{SQLITE_FILE}"


def resolve_uri(uri: str | None) -> str | None:
    """The tracking URI to use: as given, else ``MLFLOW_TRACKING_URI``, else None.

    A relative sqlite path is made absolute, since workers run in other folders.

    Raises:
        UserError: If MLflow cannot record there.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return None
    scheme = urlsplit(uri).scheme.split("+")[0]
    if scheme not in _SCHEMES and os.environ.get("MLFLOW_ALLOW_FILE_STORE") != "true":
        raise UserError(
            f"tracking.uri: {uri!r} is not a place MLflow can record to; "
            f"expected http(s)://HOST:PORT or sqlite:///FILE.db"
        )
    if uri.startswith(_SQLITE):
        return f"{_SQLITE}{Path(uri.removeprefix(_SQLITE)).absolute()}"
    return uri


def without_password(uri: str) -> str:
    """The URI as it may be written down; credentials come from MLflow's environment variables."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return _OF_DATABASE.sub(r"\1", uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def open_client(uri: str) -> "MlflowClient":
    """A client with explicit run ids only: the fluent API's active run is per thread."""
    for name, value in quiet_environment().items():
        if name.startswith("MLFLOW_"):
            os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    with _first_use_alone(uri):
        return MlflowClient(tracking_uri=uri)


@contextmanager
def _first_use_alone(uri: str) -> Iterator[None]:
    """Several processes that create the same sqlite database at once would crash."""
    if not uri.startswith(_SQLITE):
        yield
        return
    database = Path(uri.removeprefix(_SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def reason(error: Exception) -> str:
    """The first line of what MLflow raised: the rest is advice or a traceback."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def snapshot(database: Path, copy: Path) -> None:
    """Copies a sqlite file that may be written meanwhile."""
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
