"""Runs with equal settings but for the seed are one group; groups are compared seed by seed."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from string import ascii_uppercase
from typing import NamedTuple

from egra_dist.compare.runs import ComparedRun

_NOT_LEARNED = ("cluster.",)
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Group:
    """Runs with equal settings.

    Attributes:
        label: Short name: ``A``, ``B``...
        settings: What differs from other groups, by dotted name.
        runs: One for each seed, or more.
    """

    label: str
    settings: dict[str, str]
    runs: list[ComparedRun]

    def by_seed(self, metric: str) -> dict[str, float]:
        """A metric by seed; the mean of several runs of one seed."""
        values: dict[str, list[float]] = {}
        for run in self.runs:
            value = {**run.metrics, **run.slices}.get(metric, math.nan)
            if not math.isnan(value):
                values.setdefault(run.seed, []).append(value)
        return {seed: statistics.fmean(found) for seed, found in values.items()}


class Summary(NamedTuple):
    """Mean and sample deviation over seeds; the deviation of one seed is not known."""

    num_seeds: int
    mean: float
    deviation: float | None


class Difference(NamedTuple):
    """A group against the reference, over the seeds that both have.

    Attributes:
        num_seeds: Common seeds.
        mean: Mean difference.
        half_width: Of the 95 % confidence interval of the mean; None with fewer than two seeds.
        p: Of the two-sided paired t-test; None with fewer than two seeds.
    """

    num_seeds: int
    mean: float
    half_width: float | None
    p: float | None


def differing(runs: Sequence[ComparedRun]) -> list[str]:
    """Settings that are not the same in all runs, in their order."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    return [name for name in names if len({run.settings.get(name) for run in runs}) > 1]


def group(runs: Sequence[ComparedRun]) -> list[Group]:
    """Groups runs by what is learned, in the order of their first runs."""
    names = [name for name in differing(runs) if not name.startswith(_NOT_LEARNED)]
    groups: dict[tuple[str | None, ...], list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault(tuple(run.settings.get(name) for name in names), []).append(run)
    return [
        Group(label, {n: v for n, v in zip(names, key, strict=True) if v is not None}, members)
        for label, (key, members) in zip(_labels(len(groups)), groups.items(), strict=True)
    ]


def summarize(group: Group, metric: str) -> Summary | None:
    """Mean and deviation over seeds; None when no run has the metric."""
    values = list(group.by_seed(metric).values())
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Summary(len(values), statistics.fmean(values), deviation)


def compare(group: Group, reference: Group, metric: str) -> Difference | None:
    """Paired difference over common seeds; None when there is none."""
    own, other = group.by_seed(metric), reference.by_seed(metric)
    differences = [own[seed] - other[seed] for seed in own if seed in other]
    number = len(differences)
    if not number:
        return None
    mean = statistics.fmean(differences)
    if number == 1:
        return Difference(1, mean, None, None)
    from scipy.special import stdtr, stdtrit

    error = statistics.stdev(differences) / math.sqrt(number)
    half_width = error * float(stdtrit(number - 1, (1 + _CONFIDENCE) / 2))
    if error == 0:
        return Difference(number, mean, 0.0, 1.0 if mean == 0 else 0.0)
    return Difference(number, mean, half_width, 2 * float(stdtr(number - 1, -abs(mean) / error)))


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Holm's adjustment of p-values that are looked at together; None stays None."""
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    adjusted: dict[str, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for position, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - position)))
        adjusted[name] = largest
    return adjusted


def metrics_of(groups: Iterable[Group]) -> list[str]:
    """Every metric that some run has: test before validation, the selecting one first."""
    runs = [run for group in groups for run in group.runs]
    names = dict.fromkeys(name for run in runs for name in run.metrics)
    first = runs[0].metric
    return sorted(names, key=lambda n: (not n.startswith("test/"), not n.endswith(first), n))


def _labels(number: int) -> list[str]:
    """``A`` to ``Z``, then ``A2``..."""
    letters = (
        letter if turn == 1 else f"{letter}{turn}"
        for turn in count(1)
        for letter in ascii_uppercase
    )
    return list(islice(letters, number))
