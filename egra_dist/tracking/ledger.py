"""``RUN/mlflow.json``: the MLflow runs as they ought to be, whether MLflow is there or not.

The driver writes here first and then brings MLflow in line, so that a run which starts, or ends,
while MLflow is away is recorded later by the same code. Only the driver writes it.
"""

import json
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from egra_dist.errors import UserError
from egra_dist.files import write_json

LEDGER = "mlflow.json"


def now_ms() -> int:
    """Milliseconds since the epoch, MLflow's clock."""
    return time.time_ns() // 1_000_000


@dataclass
class RunEntry:
    """One MLflow run as it ought to be.

    Attributes:
        stage: Name of the stage, ``""`` for the parent.
        name: The run's name in MLflow.
        key: Our own identity of it, a tag in MLflow, to find it again.
        run_id: MLflow's identity; None while it could not be created.
        asked: Whether its creation was tried: it may exist although no answer came.
        params: Settings; the first value of each stays, as MLflow wants it.
        tags: What one filters by.
        datasets: What it was made from, see :func:`egra_dist.tracking.datasets.dataset`.
        status: ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``.
        start_time: Milliseconds since the epoch.
        end_time: Milliseconds since the epoch; None while it runs.
        changed: Whether MLflow has yet to hear of something.
    """

    stage: str
    name: str
    start_time: int = field(default_factory=now_ms)
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    run_id: str | None = None
    asked: bool = False
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    datasets: list[dict[str, str]] = field(default_factory=list)
    status: str = "RUNNING"
    end_time: int | None = None
    changed: bool = True

    @property
    def id(self) -> str:
        """What others call it: MLflow's id, or our key while there is none."""
        return self.run_id or self.key

    def begin(self) -> None:
        """It runs, perhaps again."""
        self.status, self.end_time, self.changed = "RUNNING", None, True

    def end(self, status: str) -> None:
        """It ended, if it ran."""
        if self.status == "RUNNING":
            self.status, self.end_time, self.changed = status, now_ms(), True

    def add(self, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Adds parameters that it has not yet, and tags, of which the last value counts."""
        self.params = {**params, **self.params}
        self.tags = {**self.tags, **tags}
        self.changed = True

    def add_datasets(self, datasets: Iterable[dict[str, str]]) -> None:
        """Adds what it was made from, each once."""
        self.datasets += [dataset for dataset in datasets if dataset not in self.datasets]
        self.changed = True


@dataclass
class Ledger:
    """All MLflow runs of one pipeline run.

    Attributes:
        uri: Tracking URI; None for the sqlite file in the run folder, which may be moved.
        experiment: Name of the MLflow experiment.
        runs: By stage; of a stage that was made anew the earlier ones, too, under longer names.
        identity: What the run is about; None where that was not said.
    """

    uri: str | None
    experiment: str
    runs: dict[str, RunEntry] = field(default_factory=dict)
    identity: str | None = None

    @classmethod
    def read(cls, run_folder: Path) -> "Ledger | None":
        """The ledger of a run folder; None when it has none.

        Raises:
            UserError: If it is not one that this version has written.
        """
        path = run_folder / LEDGER
        try:
            fields = json.loads(path.read_text())
            runs = {stage: RunEntry(**entry) for stage, entry in fields["runs"].items()}
            for entry in runs.values():
                if Path(entry.key).name != entry.key:
                    raise ValueError(f"key {entry.key!r} is no name of a file")
            return cls(fields["uri"], fields["experiment"], runs, fields.get("identity"))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: not a readable record ({error}); without it a new record is started"
            ) from None

    def write(self, run_folder: Path) -> None:
        """Writes the ledger, whole."""
        write_json(run_folder / LEDGER, asdict(self))

    def entry(self, stage: str, name: str, digest: str | None) -> RunEntry:
        """The run of a stage: the one that it had, unless that was of another result.

        Args:
            stage: Name of the stage.
            name: Of a new run.
            digest: Of the result, if it has one.
        """
        known = self.runs.get(stage)
        if known and digest and known.tags.get("digest", digest) != digest:
            known.end("KILLED")
            self.runs[f"{stage}@{known.key}"] = self.runs.pop(stage)
        return self.runs.setdefault(stage, RunEntry(stage, name))

    def find(self, run_id: str) -> RunEntry | None:
        """The run that goes, or went before MLflow answered, by this id."""
        matches = (entry for entry in self.runs.values() if run_id in (entry.run_id, entry.key))
        return next(matches, None)


def find_run(spool: Path, run_id: str) -> RunEntry | None:
    """The run that a recorder was given; None for a run that no ledger speaks of.

    Args:
        spool: Folder of the spools, beside the ledger.
        run_id: MLflow's id or our key.
    """
    ledger = Ledger.read(spool.parent)
    return ledger.find(run_id) if ledger else None
