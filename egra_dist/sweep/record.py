"""What is known of a search, on disk: it is what makes the same command go on, or do nothing."""

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from egra_dist.config import Config
from egra_dist.errors import UserError
from egra_dist.files import write_json
from egra_dist.tracking.client import without_password
from egra_dist.tracking.names import flatten

_log = logging.getLogger(__name__)

TRIALS = "trials.json"
BEST = "best.yaml"

Status = Literal["waiting", "running", "finished", "stopped", "failed"]


@dataclass
class TrialRecord:
    """One trial.

    Attributes:
        number: Its place in the search.
        settings: What it changes, by dotted name.
        status: ``stopped``: by the scheduler; ``failed`` ones are tried again.
        history: Epoch and best validation score so far, as they were reported.
        reason: Why it failed.
        is_recorded: Whether MLflow was told how it ended.
    """

    number: int
    settings: dict[str, Any]
    status: Status = "waiting"
    history: list[tuple[int, float]] = field(default_factory=list)
    reason: str = ""
    is_recorded: bool = False

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.number:04d}"

    @property
    def epoch(self) -> int:
        """Epochs it has trained for."""
        return self.history[-1][0] if self.history else 0

    @property
    def score(self) -> float | None:
        """Best validation score; None before the first evaluation."""
        return self.history[-1][1] if self.history else None

    @property
    def is_over(self) -> bool:
        """Whether it is never run again."""
        return self.status in ("finished", "stopped")

    def report(self, epoch: int, score: float) -> None:
        """Notes an evaluation, unless it is known."""
        if epoch > self.epoch:
            self.history.append((epoch, score))


class SweepRecord:
    """The trials of a search, in ``trials.json`` and, for reading, ``trials.csv``.

    Args:
        folder: The folder of the search.
        identity: What must not change between two starts in this folder; JSON-serialisable.
        trials: All trials.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], trials: list[TrialRecord]) -> None:
        self.folder = folder
        self.identity = identity
        self.trials = trials

    @classmethod
    def open(
        cls, folder: Path, identity: Mapping[str, Any], settings: Sequence[dict[str, Any]]
    ) -> "SweepRecord":
        """The record in a folder, perhaps with more trials than before, or a new one.

        Args:
            folder: The folder of the search; created when absent.
            identity: What must not have changed.
            settings: What each trial changes.

        Raises:
            UserError: If the folder holds another search, or cannot be written.
        """
        known = _read(folder / TRIALS, identity)
        trials = {number: TrialRecord(number, trial) for number, trial in enumerate(settings)}
        trials |= {n: trial for n, trial in known.items() if n in trials or trial.is_over}
        record = cls(folder, dict(identity), list(trials.values()))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            record.save()
        except OSError as error:
            raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
        return record

    @property
    def remaining(self) -> list[TrialRecord]:
        """Those that are still to be run, or to be gone on with."""
        return [trial for trial in self.trials if not trial.is_over]

    @property
    def ranking(self) -> list[TrialRecord]:
        """Those with a score, the best first; those stopped early come after all finished ones."""
        scored = [trial for trial in self.trials if trial.score is not None]
        return sorted(scored, key=lambda trial: (trial.status != "finished", -(trial.score or 0)))

    @property
    def best(self) -> TrialRecord | None:
        """The finished trial with the best validation score."""
        ranking = self.ranking
        return ranking[0] if ranking and ranking[0].status == "finished" else None

    def count(self, status: Status) -> int:
        """How many trials have this status."""
        return sum(trial.status == status for trial in self.trials)

    def save(self) -> None:
        """Writes both files."""
        trials = [asdict(trial) for trial in self.trials]
        write_json(self.folder / TRIALS, {"search": self.identity, "trials": trials})
        searched = sorted({path for trial in self.trials for path in trial.settings})
        with (self.folder / "trials.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["trial", "status", "epoch", "score", *searched])
            for trial in self.trials:
                values = [trial.settings.get(path) for path in searched]
                writer.writerow([trial.number, trial.status, trial.epoch, trial.score, *values])

    def write_best(self, config: Config, metric: str) -> Path | None:
        """Writes the best settings as a configuration file; None while no trial has finished.

        Args:
            config: The settings of the best trial, with all that is not searched.
            metric: What its score is.
        """
        best = self.best
        if best is None:
            return None
        fields = config.model_dump(mode="json", exclude_unset=True, exclude={"cluster"})
        if config.tracking.uri:
            fields["tracking"]["uri"] = without_password(config.tracking.uri)
        header = [
            f"The best of {len(self.trials)} trials ({self.count('finished')} finished, "
            f"{self.count('stopped')} stopped early):",
            f"{metric} = {best.score:.5f} on the validation split, trial {best.number}.",
            "Searched:",
            *(f"  {path}: {json.dumps(value)}" for path, value in best.settings.items()),
        ]
        lines = "".join(f"# {line}\n" for line in header)
        path = self.folder / BEST
        path.write_text(lines + yaml.safe_dump(fields, sort_keys=False))
        return path


def _read(path: Path, identity: Mapping[str, Any]) -> dict[int, TrialRecord]:
    """The trials of an earlier start by number."""
    try:
        fields = json.loads(path.read_text())
        trials = [TrialRecord(**trial) for trial in fields["trials"]]
        earlier = flatten(fields["search"])
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a readable record of a search: {error}") from None
    now = flatten(json.loads(json.dumps(identity)))
    differences = [
        f"{name} was {earlier.get(name, 'not set')}, now it is {now.get(name, 'not set')}"
        for name in sorted(now.keys() | earlier.keys(), key=lambda name: _place(name, identity))
        if earlier.get(name) != now.get(name)
    ]
    if differences:
        hidden = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
        raise UserError(
            f"{path.parent}: holds another search: {'; '.join(differences[:3])}{hidden}; "
            f"choose another folder"
        )
    for trial in trials:
        trial.history = [(epoch, score) for epoch, score in trial.history]
    return {trial.number: trial for trial in trials}


def _place(name: str, identity: Mapping[str, Any]) -> tuple[int, str]:
    """What the user has most probably changed comes first, as in the identity."""
    sections = list(identity)
    section = name.partition(".")[0]
    return (sections.index(section) if section in sections else len(sections)), name
