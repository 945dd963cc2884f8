"""How many runs a trial needs, which comes next, and whether the candidate is slower; pure.

First the baseline alone measures the noise floor, which says how many runs a side are needed. Then
baseline and candidate take turns, A B B A A B B A ...: a phone that steadily warms up or slows down
then delays both alike, which A B A B would not do. After those runs, the spread of all runs so far
says once more how many are needed; if that is more, the trial is extended, once. Neither step looks
at the difference between the two, so that the test at the end is still the only one.

Where the noise asks for far more runs than are allowed, only the fewest are taken: they cannot show
the margin, but do show a gross slowdown, and more would waste the phone's time.

The test is Welch's, on the logarithms of run medians. Its unit is the run, one process of the
runner: images of one run share whatever delayed that process, and a test that takes them for
independent raises 24 to 38 % false alarms.

Whole trials under the default rule, simulated 6,000 times a cell with independent normal runs; in
per cent, failed / passed, the rest inconclusive:

    runs spread by   runs a side   as fast     3 % slower    6 % slower    10 % slower
         2 %             6.3       0 / 100     1.0 / 98.8    42 / 52       99.0 / 0.2
         3 %            11.3       0 / 100     1.3 / 98.0    42 / 53       98.2 / 0.8
         5 %            25.1       0 / 100     1.3 / 98.0    37 / 59       97.8 / 1.3
         8 %            29.7       0 / 98.4    1.3 / 85.0    17 / 38       77.3 / 2.3

At 8 % a trial would need 59 runs a side and is allowed 30: it is in doubt more often, not in error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from driftloop.harness.gates_file import TrialRule

Phase = Literal["floor", "trial"]
Contender = Literal["baseline", "candidate"]

_HOPELESS = 4
"""Times the allowed runs. Few runs may overestimate a phone's noise by a factor of two, which asks
for four times the runs; hardly ever for more."""
_TURNS: tuple[Contender, ...] = ("baseline", "candidate", "candidate", "baseline")


@dataclass(frozen=True)
class Step:
    """The next run. `done` and `total` count the usable runs of its phase."""

    phase: Phase
    contender: Contender
    done: int
    total: int


@dataclass(frozen=True)
class Noise:
    """How much runs scatter on this phone, and how many runs that asks for."""

    sigma: float
    runs_needed: int
    """A side, of the candidate and of the baseline."""


@dataclass(frozen=True)
class Comparison:
    """The candidate's time over the baseline's: 1.1 is slower by 10 %."""

    ratio: float
    """Of the geometric means."""
    lower: float
    """One-sided bound at `TrialRule.level`."""
    upper: float
    """One-sided bound at 1 - `TrialRule.power`."""


@dataclass(frozen=True)
class Medians:
    """The run medians so far, ms, in the order in which they were taken."""

    floor: Sequence[float]
    trial: Mapping[Contender, Sequence[float]]

    @property
    def turns(self) -> int:
        """Number of runs of the trial's own."""
        return sum(len(medians) for medians in self.trial.values())


def next_step(medians: Medians, rule: TrialRule) -> Step | None:
    """None when every run has been made."""
    if len(medians.floor) < rule.floor_runs:
        return Step("floor", "baseline", len(medians.floor), rule.floor_runs)
    runs = first = _affordable(_noise(medians, 0, rule), rule)
    if medians.turns >= 2 * first:
        runs = max(first, _affordable(_noise(medians, first, rule), rule))
    if medians.turns >= 2 * runs:
        return None
    return Step("trial", _TURNS[medians.turns % len(_TURNS)], medians.turns, 2 * runs)


def noise(medians: Medians, rule: TrialRule) -> Noise:
    """By the runs that decided how many there are to be; needs the noise floor."""
    first = _affordable(_noise(medians, 0, rule), rule)
    return _noise(medians, first if medians.turns >= 2 * first else 0, rule)


def _affordable(found: Noise, rule: TrialRule) -> int:
    hopeless = found.runs_needed > _HOPELESS * rule.max_runs
    return rule.min_runs if hopeless else min(rule.max_runs, found.runs_needed)


def _noise(medians: Medians, runs: int, rule: TrialRule) -> Noise:
    """By the noise floor and the first `runs` of each side."""
    sigma = spread(medians.floor, *(side[:runs] for side in medians.trial.values()))
    return Noise(sigma, runs_needed(sigma, rule))


def spread(*series: Sequence[float]) -> float:
    """The pooled standard deviation of log run medians, each series about its own mean.

    0.05: run medians (ms) scatter by about 5 %.

    Raises:
        ValueError: no series holds two runs.
    """
    logs = [[math.log(median) for median in medians] for medians in series if len(medians) > 1]
    if not logs:
        raise ValueError("a spread needs two runs")
    squares = math.fsum(_variance(own) * (len(own) - 1) for own in logs)
    return math.sqrt(squares / sum(len(own) - 1 for own in logs))


def runs_needed(sigma: float, rule: TrialRule) -> int:
    """The fewest runs a side for which both error rates of `rule` hold where runs spread by
    `sigma`, normally and independently; at least `min_runs`.

    The smallest k of which (t(1 - level) + t(power)) * sigma * sqrt(2 / k), with 2k - 2 degrees of
    freedom, is at most the distance from `margin` to `detect`.
    """
    distance = math.log1p(rule.detect) - math.log1p(rule.margin)

    def quantiles(degrees: float) -> float:
        return _t(1 - rule.level, degrees) + _t(rule.power, degrees)

    k = max(rule.min_runs, math.ceil(2 * (quantiles(math.inf) * sigma / distance) ** 2))
    while quantiles(2 * k - 2) * sigma * math.sqrt(2 / k) > distance:
        k += 1
    return k


def compare(
    baseline_ms: Sequence[float], candidate_ms: Sequence[float], rule: TrialRule
) -> Comparison:
    """Ratio and bounds from the run medians of both; at least two runs each."""
    sides = [[math.log(median) for median in side] for side in (baseline_ms, candidate_ms)]
    means = [math.fsum(logs) / len(logs) for logs in sides]
    errors = [_variance(logs) / len(logs) for logs in sides]
    difference, total = means[1] - means[0], sum(errors)
    below = above = 0.0
    if total > 0:
        shares = zip(errors, sides, strict=True)
        degrees = total**2 / sum(error**2 / (len(logs) - 1) for error, logs in shares)
        below = _t(1 - rule.level, degrees) * math.sqrt(total)
        above = _t(rule.power, degrees) * math.sqrt(total)
    return Comparison(
        math.exp(difference), math.exp(difference - below), math.exp(difference + above)
    )


def slower(compared: Comparison, rule: TrialRule) -> bool | None:
    """True: slower by more than `margin`. False: not slower by `detect`. None: neither is shown.

    A candidate for which both are shown, such as one slower by 6 % on a quiet phone, is slower.
    """
    if compared.lower > 1 + rule.margin:
        return True
    return False if compared.upper < 1 + rule.detect else None


def _variance(logs: Sequence[float]) -> float:
    # statistics.variance is exact, and too slow to be called after every run of simulated trials.
    mean = math.fsum(logs) / len(logs)
    return math.fsum((log - mean) ** 2 for log in logs) / (len(logs) - 1)


@lru_cache(maxsize=4096)
def _t(probability: float, degrees_of_freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, probability))
