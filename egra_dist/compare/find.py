"""Finds the runs that are meant: by id, name, folder or filter, or as the trials of a search."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from egra_dist.errors import UserError
from egra_dist.tracking.client import default_uri, resolve_uri
from egra_dist.tracking.ledger import Ledger
from egra_dist.tracking.names import SWEEP_TAG
from egra_dist.tracking.reader import RecordedRun, Records

_STAGE = "stage"
_TRIAL = "trial"


@dataclass(frozen=True)
class FoundRun:
    """One pipeline run in MLflow.

    Attributes:
        records: Where it is recorded.
        parent: The run itself.
        stages: The runs of its stages.
    """

    records: Records
    parent: RecordedRun
    stages: dict[str, RecordedRun] = field(default_factory=dict)


class Finder:
    """Finds runs; each store is opened once.

    Args:
        uri: Tracking URI of runs that are not given as folders; ``MLFLOW_TRACKING_URI`` if None.
        experiment: The MLflow experiment in which names and filters are looked up.
    """

    def __init__(self, uri: str | None, experiment: str) -> None:
        self._uri = resolve_uri(uri)
        self._experiment = experiment
        self._stores: dict[str, Records] = {}

    def runs(self, names: Sequence[str]) -> list[FoundRun]:
        """Runs by id, name, or folder, in the order given.

        Raises:
            UserError: If one of them is not there, or a name stands for several runs.
        """
        return [self._run(name) for name in names]

    def matching(self, condition: str) -> list[FoundRun]:
        """Runs that fit a filter in MLflow's language, oldest first.

        Raises:
            UserError: If MLflow does not understand it.
        """
        records = self._default_records("--filter")
        found = records.runs(self._experiment, condition)
        parents = [run for run in reversed(found) if _STAGE not in run.tags]
        return [_with_stages(records, run) for run in parents]

    def sweep(self, name: str) -> tuple[FoundRun, list[FoundRun]]:
        """The run of a search, and its trials by their name.

        Args:
            name: Name of the search, or its folder.

        Raises:
            UserError: If there is no such search.
        """
        ledger = Ledger.read(Path(name))
        records = self._records_of(Path(name), ledger) if ledger else None
        experiment = ledger.experiment if ledger else self._experiment
        records = records or self._default_records(f"--sweep {name}")
        tag = Path(name).resolve().name if ledger else name
        # One query for the search, its trials and all their stages.
        found = records.runs(experiment, f"tags.{SWEEP_TAG} = '{tag}'")
        stages: dict[str | None, dict[str, RecordedRun]] = {}
        for run in found:
            if _STAGE in run.tags:
                stages.setdefault(run.parent_id, {})[run.tags[_STAGE]] = run
        heads = [run for run in found if not run.parent_id and _TRIAL not in run.tags]
        trials = sorted((run for run in found if _TRIAL in run.tags), key=lambda run: run.name)
        if not heads or not trials:
            raise UserError(f"--sweep {name}: no search of this name with trials that are over")
        runs = [FoundRun(records, run, stages.get(run.run_id, {})) for run in trials]
        return FoundRun(records, heads[-1]), runs  # the newest comes first, the search was first

    def _run(self, name: str) -> FoundRun:
        ledger = Ledger.read(Path(name))
        if ledger:
            records = self._records_of(Path(name), ledger)
            run_id = ledger.runs[""].run_id
            if run_id is None:
                raise UserError(f"{name}: has not reached MLflow; egra-dist track sync {name}")
            return _with_stages(records, records.run(run_id))
        records = self._default_records(name)
        if len(name) == 32 and all(letter in "0123456789abcdef" for letter in name):
            run = records.run(name)
        else:
            run = self._by_name(records, name)
        if _STAGE in run.tags and run.parent_id:
            run = records.run(run.parent_id)
        return _with_stages(records, run)

    def _by_name(self, records: Records, name: str) -> RecordedRun:
        if "'" in name:
            raise UserError(f"{name}: a name with a quote cannot be looked up; give the run's id")
        found = records.runs(self._experiment, f"attributes.run_name = '{name}'")
        if not found:
            raise UserError(
                f"{name}: neither a run folder nor the id or name of a run in experiment "
                f"{self._experiment!r}"
            )
        if len(found) > 1:
            ids = ", ".join(run.run_id for run in found[:3])
            raise UserError(f"{name}: {len(found)} runs have this name; give an id: {ids}")
        return found[0]

    def _records_of(self, folder: Path, ledger: Ledger) -> Records:
        return self._store(ledger.uri or default_uri(folder))

    def _default_records(self, what: str) -> Records:
        if self._uri is None:
            raise UserError(
                f"{what}: not a run folder, and which MLflow? give --uri or MLFLOW_TRACKING_URI"
            )
        return self._store(self._uri)

    def _store(self, uri: str) -> Records:
        if uri not in self._stores:
            self._stores[uri] = Records(uri)
        return self._stores[uri]


def _with_stages(records: Records, run: RecordedRun) -> FoundRun:
    return FoundRun(records, run, records.children(run))
