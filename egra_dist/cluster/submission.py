"""What is sent to a Ray cluster: the settings that were given, and the code that reads them."""

import hashlib
import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from egra_dist.config import Config
from egra_dist.errors import UserError
from egra_dist.redaction import redact
from egra_dist.storage import Storage
from egra_dist.tracking.facts import GIT_VARIABLES, git_state
from egra_dist.tracking.names import flatten

CONFIG = "config.yaml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Submission:
    """One pipeline run as a job.

    Paths are the cluster's: a storage that all its machines see.

    Attributes:
        name: Name of the run; a run is submitted once, however often the command is given.
        config: All settings.
        catalog: Catalogue folder, or its URI.
        out: The run folder.
        stage: The last stage.
        artifacts: Where results of stages are kept, if not in the run folder.
        storage: Where results and checkpoints are copied to, if anywhere.
        verbosity: How much the libraries say.

    Raises:
        UserError: If the name cannot be a job's.
    """

    name: str
    config: Config
    catalog: Path | str
    out: Path
    stage: str = "export"
    artifacts: Path | None = None
    storage: Storage | None = None
    verbosity: int = 0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UserError(
                f"--name {self.name!r}: letters, digits, '_', '.' and '-', at most 100, "
                "the first a letter or digit"
            )

    def command(self, config: str = CONFIG) -> list[str]:
        """The command that the cluster runs.

        Args:
            config: Where the settings stand there.
        """
        command = ["python", "-m", "egra_dist", "run", config]
        command += ["--catalog", str(self.catalog), "--out", str(self.out), "--stage", self.stage]
        if self.artifacts:
            command += ["--artifacts", str(self.artifacts)]
        if self.storage:
            command += ["--storage", self.storage.uri]
        return command + ["-v"] * self.verbosity

    @property
    def settings(self) -> str:
        """The settings that were given, as YAML; the defaults come with the code.

        Raises:
            UserError: If a setting or a path holds a password or a token: what is sent can be
                read by whoever sees the cluster's dashboard.
        """
        given = self.config.model_dump(mode="json", exclude_unset=True)
        for name, value in {**flatten(given), "the command": shlex.join(self.command())}.items():
            if redact(value) != value:
                raise UserError(
                    f"{name}: has a password or a token, which would be readable on the cluster; "
                    "set it in the environment of its machines (for MLflow's server: "
                    "MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)"
                )
        return yaml.safe_dump(given, sort_keys=False)

    @property
    def digest(self) -> str:
        """Tells this run from one of the same name with other settings, paths or stage."""
        content = json.dumps([self.settings, self.command()])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def environment(self) -> dict[str, str]:
        """Variables of the job; no secret is among them."""
        return git_state(GIT_VARIABLES)

    def write_package(self, folder: Path) -> None:
        """Fills the job's working directory: the settings, and this very code.

        Args:
            folder: An empty folder.
        """
        (folder / CONFIG).write_text(self.settings)
        shutil.copytree(
            _PACKAGE, folder / _PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__")
        )
