"""``state.json``: which checkpoints count, where the training stood, and what it was trained on.

A checkpoint folder counts once this file names it. The file is replaced in one piece after every
rank has written its part, so that whenever a process dies, the checkpoints that it names are whole.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from egra_dist.errors import UserError
from egra_dist.files import write_json

COMMIT = "state.json"


@dataclass
class TrainingState:
    """Where a training stands.

    Nothing else is needed to go on: batches, negatives, neighbourhoods and masks are drawn from
    the seed, the epoch and the step, so no generator has a state, and epoch and step are the
    position of the reader.

    Attributes:
        epoch: Epochs done.
        step: Optimisation steps done, over all epochs; drives the alignment ramp.
        step_of_epoch: Those of them that belong to the epoch that is not done.
        best_score: Best validation score so far.
        best_epoch: The epoch after which it was reached.
        evaluations_since_best: Evaluations without a better score.
        is_finished: Whether the training has ended, early or not.
    """

    epoch: int = 0
    step: int = 0
    step_of_epoch: int = 0
    best_score: float = float("-inf")
    best_epoch: int = 0
    evaluations_since_best: int = 0
    is_finished: bool = False


@dataclass(frozen=True)
class Identity:
    """What the checkpoints of a training belong to.

    Attributes:
        made_from: Digests of the data and graphs, and the seed, by name.
        shapes: Size of every tensor, by name.
        run_id: The MLflow run that records the training; may change.
    """

    made_from: dict[str, str]
    shapes: dict[str, list[int]]
    run_id: str | None = None

    def check(self, found: "Identity", where: Path) -> None:
        """Refuses checkpoints of another training.

        Raises:
            UserError: Naming what differs first.
        """
        for name in ("made_from", "shapes"):
            theirs, ours = getattr(found, name), getattr(self, name)
            for key in sorted(theirs.keys() | ours.keys()):
                if theirs.get(key) != ours.get(key):
                    raise UserError(
                        f"{where}: checkpoints of another training: {key} is "
                        f"{_shown(theirs.get(key))} there, {_shown(ours.get(key))} here"
                    )


@dataclass(frozen=True)
class Entry:
    """One checkpoint: a folder and where the training stood."""

    name: str
    training: TrainingState


@dataclass(frozen=True)
class Commit:
    """What ``state.json`` says.

    Attributes:
        identity: What the checkpoints belong to.
        kept: The last checkpoints, the newest last.
        best: The one with the best validation score.
    """

    identity: Identity
    kept: list[Entry] = field(default_factory=list)
    best: Entry | None = None

    def added(self, entry: Entry, is_best: bool, num_kept: int) -> "Commit":
        """The commit that follows this one."""
        before = [other for other in self.kept if other.name != entry.name]
        best = entry if is_best or self.best is None else self.best
        return Commit(self.identity, [*before, entry][-num_kept:], best)

    def without(self, entry: Entry) -> "Commit":
        """The commit in which a checkpoint is no more, except as the best."""
        return replace(self, kept=[other for other in self.kept if other != entry])

    @property
    def newest_first(self) -> list[Entry]:
        """All of them in the order in which they are worth going on from, each once."""
        others = [self.best] if self.best and self.best.name not in self.last_names else []
        return sorted([*reversed(self.kept), *others], key=lambda entry: -entry.training.step)

    @property
    def names(self) -> set[str]:
        """Folders that count."""
        return {entry.name for entry in self.newest_first}

    @property
    def last_names(self) -> set[str]:
        """Those of the last checkpoints."""
        return {entry.name for entry in self.kept}

    def write(self, folder: Path) -> None:
        """Commits."""
        write_json(folder / COMMIT, {"training": asdict(self.kept[-1].training), **asdict(self)})

    @staticmethod
    def read(folder: Path) -> "Commit | None":
        """What was committed last; None before the first.

        Raises:
            UserError: If the file is not readable as such.
        """
        path = folder / COMMIT
        try:
            return _parse(json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path}: not a readable list of checkpoints: {reason}") from None


def _parse(fields: Mapping[str, Any]) -> Commit:
    identity = fields["identity"]
    return Commit(
        Identity(dict(identity["made_from"]), dict(identity["shapes"]), identity.get("run_id")),
        _entries(fields["kept"]),
        _entries([fields["best"]])[0],
    )


def _entries(fields: Sequence[Mapping[str, Any]]) -> list[Entry]:
    entries = [Entry(each["name"], TrainingState(**each["training"])) for each in fields]
    for entry in entries:
        if not entry.name.startswith("step-") or Path(entry.name).name != entry.name:
            raise ValueError(f"{entry.name!r} is no name of a checkpoint")
        if not all(isinstance(value, int | float) for value in asdict(entry.training).values()):
            raise ValueError(f"{entry.name}: training: expected numbers")
    if not entries:
        raise ValueError("it lists none")
    return entries


def _shown(value: Any) -> str:
    return "absent" if value is None else repr(value)
