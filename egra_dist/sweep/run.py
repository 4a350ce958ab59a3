"""A search from its start to the best settings: read this first.

    shared stages once -> trials side by side, bad ones stopped early -> best.yaml

A trial is a run of the pipeline up to its training, in a folder of its own, with the results of
stages shared by all. Only the validation split is looked at.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from egra_dist.catalog.catalog import Catalog
from egra_dist.cluster.session import ray_session
from egra_dist.config import MAIN, ClusterSettings, Config
from egra_dist.errors import UserError
from egra_dist.results import curves
from egra_dist.sweep.base import changed, last_shared_stage, prepare
from egra_dist.sweep.placement import place_trials
from egra_dist.sweep.record import BEST, TRIALS, SweepRecord, TrialRecord
from egra_dist.sweep.space import SearchSpace
from egra_dist.sweep.trial import TrialTask
from egra_dist.tracking.experiment import Experiment
from egra_dist.tracking.names import SWEEP_TAG
from egra_dist.tracking.progress import StageProgress

_log = logging.getLogger(__name__)
_SECONDS_TO_LEAVE = 60.0


def run_sweep(
    config: Config,
    catalog: Catalog,
    space: SearchSpace,
    out: Path,
    verbosity: int = 0,
    source: str = "space",
) -> SweepRecord:
    """Searches settings, or goes on with it; what has been tried is not tried again.

    Args:
        config: Where the search starts from.
        catalog: What is learned from.
        space: What is varied.
        out: Folder of the search; created when absent.
        verbosity: 0, or more to see what the libraries say.
        source: Name of the space's file, for errors.

    Returns:
        The trials; ``best.yaml`` in the folder has the settings of the best.

    Raises:
        UserError: If a setting of the space cannot be searched, the folder holds another search,
            the cluster cannot hold a trial, or no trial has finished.
        KeyboardInterrupt: If the user stopped it.
    """
    sweep = Sweep(config, catalog, space, out, verbosity, source)
    if sweep.record.remaining:
        sweep.run()
    else:
        _log.info("all %d trials were done before", len(sweep.record.trials))
    if sweep.record.best is None:
        reasons = {trial.reason for trial in sweep.record.trials if trial.reason}
        raise UserError(f"{out}: no trial has finished: {'; '.join(sorted(reasons))}")
    return sweep.record


class Sweep:
    """A search in its folder; see :func:`run_sweep` for the arguments."""

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        space: SearchSpace,
        out: Path,
        verbosity: int,
        source: str,
    ) -> None:
        self._given = config
        self._base = prepare(config, space, source)
        self._catalog = catalog
        self._space = space
        self._folder = out.resolve()
        self._verbosity = verbosity
        self.metric = self._base.train.metric
        trials = space.trials()
        configs = [changed(self._base, settings, source) for settings in trials]
        self._max_epochs = max(config.train.max_epochs for config in configs)
        self.record = SweepRecord.open(self._folder, self._identity(), trials)

    def run(self) -> None:
        """Runs what remains."""
        with self._open_experiment() as experiment:
            try:
                with ray_session(self._session_settings(), self._verbosity):
                    self._make_what_is_shared(experiment)
                    self._search(experiment)
            finally:
                self._close(experiment)

    def best_config(self) -> Config:
        """The configuration that was given, with the settings of the best trial."""
        best = self.record.best
        assert best
        return changed(self._given, {"train.metric": self.metric, **best.settings})

    def _identity(self) -> dict[str, Any]:
        """What makes this search another than one with other settings."""
        num_users = self._base.evaluation.num_users
        return {
            **({} if num_users is None else {"num_users": num_users}),
            "metric": self.metric,
            "seed": self._space.seed,
            "space": {p: d.model_dump(exclude_unset=True) for p, d in self._space.space.items()},
            "settings": self._base.model_dump(
                mode="json", exclude={"cluster", "tracking", "evaluation"}
            ),
            "catalog": self._catalog.digest,
        }

    def _open_experiment(self) -> Experiment:
        tracking = self._base.tracking
        return Experiment.open(
            tracking.uri,
            self._folder,
            tracking.experiment,
            tracking.run_name,
            tags={
                SWEEP_TAG: self._folder.name,
                "dataset": self._catalog.path.resolve().name,
                "dataset_digest": self._catalog.digest,
                "model": self._base.train.model.name,
            },
            params=self._space.model_dump(mode="json", exclude_unset=True),
        )

    def _session_settings(self) -> ClusterSettings:
        """A local Ray offers as many places as the trials asked for need."""
        cluster = self._base.cluster
        num_workers = cluster.num_workers * (self._space.max_concurrent or 1)
        return cluster.model_copy(update={"num_workers": num_workers})

    def _make_what_is_shared(self, experiment: Experiment) -> None:
        """Runs the stages that no trial changes, so that trials do not wait for one another."""
        from egra_dist.pipeline import run_pipeline

        stage = last_shared_stage(self._space.space)
        if stage:
            tracking = {"tracking.uri": experiment.uri, "tracking.run_name": "shared stages"}
            run_pipeline(
                changed(self._base, tracking),
                self._catalog,
                self._folder / "shared",
                stage,
                self._verbosity,
                self._folder / "artifacts",
                self._tags_of_trials(experiment),
            )

    def _search(self, experiment: Experiment) -> None:
        from egra_dist.sweep.tuner import search

        remaining = self.record.remaining
        cluster, max_concurrent = place_trials(
            self._base.cluster, self._space.max_concurrent, len(remaining)
        )
        tasks = {trial.number: self._task(trial, cluster, experiment) for trial in remaining}
        scheduler, max_epochs = self._space.scheduler, self._max_epochs
        with self._progress() as show:
            search(
                self.record,
                tasks,
                {"MLFLOW_TRACKING_URI": experiment.uri},
                scheduler,
                max_epochs,
                max_concurrent,
                show,
                self._verbosity,
            )
            if any(trial.status in ("waiting", "running") for trial in self.record.trials):
                _log.info("sweep: interrupted; the same command goes on")
                raise KeyboardInterrupt

    def _task(
        self, trial: TrialRecord, cluster: ClusterSettings, experiment: Experiment
    ) -> TrialTask:
        """Writes the configuration of a trial into its folder.

        Where it records comes from its environment: the URI may have a password.
        """
        folder = self._trial_folder(trial)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            **trial.settings,
            "cluster": cluster.model_dump(mode="json"),
            "tracking.uri": None,
            "tracking.run_name": f"trial {trial.name}",
        }
        fields = changed(self._base, settings).model_dump(mode="json", exclude_unset=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
        return TrialTask(
            folder=str(folder),
            directory=str(Path.cwd()),
            catalog=str(self._catalog.path.resolve()),
            artifacts=str(self._folder / "artifacts"),
            tags=tuple(self._tags_of_trials(experiment).items()),
            verbosity=self._verbosity,
        )

    def _tags_of_trials(self, experiment: Experiment) -> dict[str, str]:
        return {SWEEP_TAG: self._folder.name, **experiment.tags_of_nested_runs}

    def _trial_folder(self, trial: TrialRecord) -> Path:
        return self._folder / "trials" / trial.name

    @contextmanager
    def _progress(self) -> Iterator[Any]:
        record = self.record
        with StageProgress("sweep", len(record.trials), "trials") as line:

            def show() -> None:
                record.save()
                scores = [trial.score for trial in record.trials if trial.score is not None]
                best = {f"best_{self.metric}": max(scores)} if scores else {}
                counts = {name: record.count(name) for name in ("running", "stopped", "failed")}
                done = len(record.trials) - record.count("waiting") - counts["running"]
                line.update(done, **counts, **best)

            show()
            yield show

    def _close(self, experiment: Experiment) -> None:
        """Writes the result so far, and tells MLflow."""
        for trial in self.record.trials:
            if trial.is_over and not trial.is_recorded:
                self._record_trial(trial, experiment)
        self.record.save()
        experiment.log_artifact(self._folder / TRIALS)
        if self.record.best:
            self.record.write_best(self.best_config(), self.metric)
            experiment.log_artifact(self._folder / BEST)
            experiment.log_metrics({f"best/valid/{self.metric}": self.record.best.score or 0.0})

    def _open_run(self, trial: TrialRecord, experiment: Experiment) -> Experiment:
        """Its run; Tune does not wait until the process of a trial that it stops has left it."""
        folder, name = self._trial_folder(trial), self._base.tracking.experiment
        # Below the search also where MLflow was away when the trial began.
        tags = {"trial": trial.status, **experiment.tags_of_nested_runs}
        deadline = time.monotonic() + _SECONDS_TO_LEAVE
        while True:
            try:
                return Experiment.open(experiment.uri, folder, name, tags=tags)
            except UserError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def _record_trial(self, trial: TrialRecord, experiment: Experiment) -> None:
        """Adds to a trial's run what its process did not know: its score, and how it ended.

        Its curves, too, which a process that had to be killed has not copied.
        """
        scores = {f"best/valid/{self.metric}": trial.score or 0.0, "train/epochs": trial.epoch}
        try:
            with self._open_run(trial, experiment) as run:
                run.log_metrics(scores)
                if training := run.find(MAIN):
                    run.copy_metrics(training, curves(self.metric))
        except UserError as error:
            _log.warning("%s; its score is recorded by the next start", error)
            return
        trial.is_recorded = True
