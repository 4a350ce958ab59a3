"""A submitted run that is disturbed while it works, and what has to hold of it at its end."""

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from egra_dist.manifest import MANIFEST
from egra_dist.tracking.reader import Records
from tests.clusters import REPOSITORY, LocalCluster, command_line, kill, wait_for

KINDS = ("worker", "node", "head", "driver")
EVERY_STEPS = 2
CHECKPOINT_STEPS = 10
QUIET = (
    "item_graph.source=raw",
    "train.patience=10000",
    "train.evaluate_every=10",
    "train.batch_size=512",
    "train.alignment.ramp_steps=100",
    "cluster.num_workers=2",
    "cluster.cpus_per_worker=1",
    "cluster.max_failures=-1",
    f"cluster.checkpoint_steps={CHECKPOINT_STEPS}",
    f"tracking.log_every_steps={EVERY_STEPS}",
    "tracking.system_metrics=false",
)
"""A training without a pretrained model, which checkpoints and records often."""


@dataclass(frozen=True)
class Kill:
    """What was killed, and what became of it.

    Attributes:
        kind: One of :data:`KINDS`.
        at: The last step recorded.
        committed: The step of the last checkpoint.
        resumed: The step at which workers then went on; None if they began anew.
        seconds: From the kill until a further step was recorded.
    """

    kind: str
    at: int
    committed: int
    resumed: int | None
    seconds: float

    @property
    def lost(self) -> bool:
        """Whether it went on from earlier than its last checkpoint."""
        return self.committed > 0 and (self.resumed or 0) < self.committed


class Disturbed:
    """A run on a cluster of two nodes with a worker each.

    Args:
        cluster: Where it runs.
        catalog: Catalogue folder.
        out: Run folder.
        settings: ``KEY=VALUE`` beyond :data:`QUIET`.

    Attributes:
        kills: Every kill so far.
    """

    def __init__(
        self, cluster: LocalCluster, catalog: Path, out: Path, settings: Sequence[str]
    ) -> None:
        self.cluster = cluster
        self.out = out
        self.kills: list[Kill] = []
        self._options = ["configs/default.yaml", "--catalog", str(catalog), "--out", str(out)]
        self._options += [f"--set={setting}" for setting in (*QUIET, *settings)]
        self._submission: subprocess.Popen | None = None
        self.said = ""

    def finish(self, seconds: float) -> "Disturbed":
        """Submits it and waits for its end, which has to be a good one."""
        self.submit()
        assert self.wait(seconds) == 0, self.said
        return self

    def submit(self) -> None:
        """Sends it, or attaches to it."""
        self._submission = subprocess.Popen(
            self.cluster.submit_command(*self._options),
            env=self.cluster.environment,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(self, seconds: float) -> int:
        """Waits for the command's end, and keeps what it said."""
        assert self._submission is not None
        self.said, _ = self._submission.communicate(timeout=seconds)
        return self._submission.returncode

    def wait_for_step(self, step: int, seconds: float = 300) -> None:
        """Waits until the training has recorded a step."""
        assert self._submission is not None
        deadline = time.monotonic() + seconds
        while self.step() < step:
            assert self._submission.poll() is None, self._submission.communicate()[0]
            assert time.monotonic() < deadline, f"step {step} was not reached"
            time.sleep(0.05)

    def disturb(self, kind: str) -> Kill:
        """Kills something, does what is done by hand then, and waits until steps follow."""
        earlier, at, committed = Counter(self.resumed()), self.step(), self.committed()
        started = time.monotonic()
        self._kill(kind)
        self._recover(kind)
        # Survivors may have made some steps more: only a resumed group says that it is over.
        wait_for(lambda: not committed or self._resumed_since(earlier), 600, "workers to go on")
        self.wait_for_step(self.step() + 1, 600)
        seconds, resumed = time.monotonic() - started, self._resumed_since(earlier)
        self.kills.append(Kill(kind, at, committed, min(resumed, default=None), seconds))
        return self.kills[-1]

    def _kill(self, kind: str) -> None:
        """Kills without a word: the second worker, a node, the head or the driver."""
        if kind == "node":
            self.cluster.kill_node(self.cluster.nodes[0])
            self.cluster.add_node(1)
        elif kind == "head":
            self.cluster.kill_head()
        else:
            name = "RayTrainWorker" if kind == "worker" else "-m egra_dist run"
            victims = self.processes(name)
            assert victims, f"no {kind} to kill"
            kill(victims[-1])
        if kind in ("head", "driver"):
            assert self.wait(120) not in (0, None), self.said

    def _recover(self, kind: str) -> None:
        """What is done by hand after the death of a head or a driver: the same command again."""
        if kind == "head":
            self.cluster.start_head()
            for count in (2, 3):
                self.cluster.join(1, count)
        if kind in ("head", "driver"):
            self.submit()

    def _resumed_since(self, earlier: Counter[int]) -> Counter[int]:
        return Counter(self.resumed()) - earlier

    def processes(self, name: str) -> list[psutil.Process]:
        """Processes of the cluster whose command line names something."""
        found = [process for process in self.cluster.left_over() if name in command_line(process)]
        return [process for process in found if "submit" not in command_line(process)]

    def step(self) -> int:
        """The last step of the training that is recorded."""
        return last_step(self.out)

    def committed(self) -> int:
        """The step of the last checkpoint that counts."""
        with suppress(StopIteration, OSError):
            state = next(self.out.rglob("artifacts/*/checkpoints/state.json"))
            names = re.findall(r"step-(\d+)-of", state.read_text())
            return max(map(int, names), default=0)
        return 0

    def resumed(self) -> list[int]:
        """The steps at which workers went on, in no order; before the cluster is stopped."""
        logs = Path(self.cluster.folder).rglob("logs/worker-*")
        found = (re.findall(r"resumed after .*step (\d+)", _text(path)) for path in logs)
        return [int(step) for steps in found for step in steps]


def last_step(out: Path) -> int:
    """The last step of the training that a run folder has recorded, -1 before the first."""
    last = -1
    for path in out.glob("spool/*.jsonl"):
        for line in path.read_bytes().splitlines()[-3:]:
            with suppress(ValueError):  # a line that is being written
                last = max(last, _step_of(line))
    return last


def figures(out: Path) -> dict[str, object]:
    """What a training found, without how long it took: to be compared bit for bit."""
    folder = next(path for path in (out / "artifacts").glob("train-*"))
    names = ["training.json", *(path.name for path in folder.glob("evaluation-*.json"))]
    vectors = {path.name: path.read_bytes() for path in folder.glob("*_vectors.npy")}
    assert len(names) == len(vectors) == 2
    return {name: json.loads((folder / name).read_text()) for name in names} | vectors


def half_written(out: Path) -> list[str]:
    """What a finished run must not leave: parts of artifacts, folders without a manifest."""
    partial = [str(path) for path in out.rglob("*") if ".partial" in path.name]
    folders = [path for path in (out / "artifacts").iterdir() if path.is_dir()]
    visible = [path for path in folders if not path.name.startswith(".")]
    return partial + [str(path) for path in visible if not (path / MANIFEST).exists()]


def check_record(out: Path, num_steps: int) -> None:
    """One MLflow run with a child per stage, all finished, every step once and none left out."""
    records = Records(f"sqlite:///{out}/mlflow.db")
    runs = records.runs("egra")
    parents = [run for run in runs if run.parent_id is None]
    assert len(parents) == 1, f"{len(parents)} runs"
    children = [run.name for run in runs if run.parent_id]
    assert len(children) == len(set(children)), f"a stage has several runs: {children}"
    assert {run.status for run in runs} == {"FINISHED"}, [(r.name, r.status) for r in runs]
    train = records.children(parents[0])["train"]
    steps = [value.step for value in records.series(train.run_id, "train/loss_total")]
    assert steps == list(range(0, num_steps, EVERY_STEPS)), "a step is missing or there twice"


def _text(path: Path) -> str:
    return path.read_text(errors="replace")


def _step_of(line: bytes) -> int:
    fields = json.loads(line)
    return fields["step"] if "train/loss_total" in fields["metrics"] else -1
