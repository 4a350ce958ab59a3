"""Which trainings are still to be run, given what has been measured."""

import hashlib
import json
from dataclasses import asdict, dataclass, field

from tests.benchmarks.quality.experiments import (
    BATCH_SIZE,
    DATA_SETS,
    HISTORIES,
    MODELS,
    PRETRAINED,
    PUBLISHED,
    SHALLOW_TRIALS,
    VARIANTS,
    WORSE_LOSS_SEEDS,
)

METRIC = "recall_at_20"


@dataclass(frozen=True)
class Trial:
    """One training and its evaluation; a search reads validation alone."""

    data: str
    model: str
    loss: str
    purpose: str
    seed: int = 0
    settings: dict = field(default_factory=dict)

    @property
    def digest(self):
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def name(self):
        """What it is, on its data set."""
        return f"{self.model}:{self.purpose}:{self.loss}:{self.seed}"

    @property
    def is_search(self):
        return self.purpose == "search"


def _same_for_all(data):
    """Settings that every trained model has on a data set."""
    given = {"train.batch_size": BATCH_SIZE}
    if "patience" in DATA_SETS[data]:
        given["train.patience"] = DATA_SETS[data]["patience"]
    return given


class Plan:
    """Trials in the order in which they are worth running.

    Args:
        measured: Rows by digest, see ``store.py``.
        data_sets: Names.
        models: Names.
    """

    def __init__(self, measured, data_sets, models):
        self._measured = measured
        self._data_sets = data_sets
        self._models = models

    def pending(self):
        """Trials whose settings are known and that have not been run."""
        return [
            trial
            for data in self._data_sets
            for trial in self._of_data(data)
            if trial.digest not in self._measured
        ]

    def best(self, data, model, losses=None, num_rounds=None):
        """The trial of a finished search with the best validation score; None before that."""
        rows = []
        for loss in losses or MODELS[model].losses:
            for trials in self._rounds(data, model, loss)[:num_rounds]:
                if not trials or any(trial.digest not in self._measured for trial in trials):
                    return None
                rows += trials
        return max(rows, key=lambda trial: self._measured[trial.digest]["valid"]["metrics"][METRIC])

    def searches(self, data, model, loss):
        """The trials of a search; none of a round before the pretrained model's is finished."""
        return [trial for trials in self._rounds(data, model, loss) for trial in trials]

    def _rounds(self, data, model, loss):
        if MODELS[model].is_shallow:
            same, num_trials = {}, SHALLOW_TRIALS
        else:
            same, num_trials = _same_for_all(data), DATA_SETS[data]["trials"]
        rounds = []
        for number, drawn in enumerate(MODELS[model].rounds(loss, num_trials, data), start=1):
            given = self._pretraining(data, model, number)
            known = [] if given is None else drawn
            rounds.append(
                [
                    Trial(data, model, loss, "search", 0, {**given, **settings, **same})
                    for settings in known
                ]
            )
        return rounds

    def finals(self, data, model, loss):
        """The best settings of a loss with every seed; of the worse loss with few."""
        best = self.best(data, model, [loss])
        if best is None:
            return []
        num_seeds = self._num_seeds(data, model, loss)
        return [Trial(data, model, loss, "final", s, best.settings) for s in range(num_seeds)]

    def _num_seeds(self, data, model, loss):
        if MODELS[model].is_shallow:
            return 1
        best = self.best(data, model)
        is_better = best is not None and best.loss == loss
        return DATA_SETS[data]["seeds"] if is_better else WORSE_LOSS_SEEDS

    def published(self, data, model):
        """The papers' settings with every seed; none for a model that has none here."""
        if model not in PUBLISHED:
            return []
        settings = {"train.batch_size": BATCH_SIZE, **PUBLISHED[model]}
        return [
            Trial(data, model, "bpr", "published", seed, settings)
            for seed in range(DATA_SETS[data]["seeds"])
        ]

    def histories(self, data, model):
        """The best of a model with its users' latest items, where it is known which they are."""
        best = self.best(data, model)
        if best is None or MODELS[model].is_shallow or not DATA_SETS[data].get("rows_in_order"):
            return []
        settings = {**best.settings, **HISTORIES}
        return [
            Trial(data, model, best.loss, "history", seed, settings)
            for seed in range(DATA_SETS[data]["seeds"])
        ]

    def variants(self, data, model, purposes):
        """The best of a model with one thing changed, with every seed."""
        best = self.best(data, model)
        if best is None:
            return []
        return [
            Trial(data, model, best.loss, purpose, seed, {**best.settings, **changes})
            for purpose, changes in purposes.items()
            for seed in range(DATA_SETS[data]["variant_seeds"])
        ]

    def _pretraining(self, data, model, num_rounds):
        """Settings of the first stage: the best of the pretrained model's own search so far."""
        if not MODELS[model].needs_pretraining:
            return {}
        best = self.best(data, PRETRAINED, num_rounds=num_rounds)
        if best is None:
            return None
        return {key.replace("train.", "pretrain.", 1): v for key, v in best.settings.items()}

    def _of_data(self, data):
        pairs = [(model, loss) for model in self._models for loss in MODELS[model].losses]
        for model, loss in pairs:
            yield from self.searches(data, model, loss)
        finals = [trial for pair in pairs for trial in self.finals(data, *pair)]
        histories = [trial for name in self._models for trial in self.histories(data, name)]
        yield from sorted([*finals, *histories], key=lambda trial: trial.seed)
        published = [trial for name in self._models for trial in self.published(data, name)]
        yield from sorted(published, key=lambda trial: trial.seed)
        variants = [
            trial
            for model in self._models
            for purposes in VARIANTS.get(model, {}).values()
            for trial in self.variants(data, model, purposes)
        ]
        yield from sorted(variants, key=lambda trial: trial.seed)
