"""Is the candidate slower? Welch's test on the logarithms of run medians; pure.

The unit is the run, one process of the runner: images of one run share whatever held that process
up, and a test that takes each for a witness of its own raises 24 to 38 % false alarms.

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
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from harness.gates_file import TrialRule


@dataclass(frozen=True)
class Spread:
    """The standard deviation of log run medians about the mean of their own series."""

    sigma: float
    """0.05: run medians scatter by about 5 %."""
    degrees_of_freedom: int


@dataclass(frozen=True)
class Comparison:
    """The candidate's time over the baseline's: 1.1 is slower by 10 %."""

    ratio: float
    """Of the geometric means."""
    lower: float
    """One-sided bound at `TrialRule.level`."""
    upper: float
    """One-sided bound at 1 - `TrialRule.power`."""


def spread(*series: Sequence[float]) -> Spread:
    """The pooled spread of run medians (ms), each series about its own mean.

    Raises:
        ValueError: no series holds two runs.
    """
    squares, degrees = 0.0, 0
    for medians in series:
        if len(medians) > 1:
            logs = [math.log(median) for median in medians]
            squares += _variance(logs) * (len(logs) - 1)
            degrees += len(logs) - 1
    if not degrees:
        raise ValueError("a spread needs two runs")
    return Spread(math.sqrt(squares / degrees), degrees)


def runs_needed(sigma: float, rule: TrialRule) -> int:
    """The fewest runs a side for which both error rates of `rule` hold where runs spread by
    `sigma`, normally and independently; at least `min_runs`.

    The smallest k of which (t(1 - level) + t(power)) * sigma * sqrt(2 / k), with 2k - 2 degrees of
    freedom, is at most the distance from `margin` to `detect`.
    """
    distance = math.log1p(rule.detect) - math.log1p(rule.margin)
    quantiles = _t(1 - rule.level, math.inf) + _t(rule.power, math.inf)
    k = max(rule.min_runs, math.ceil(2 * (quantiles * sigma / distance) ** 2))
    while True:
        quantiles = _t(1 - rule.level, 2 * k - 2) + _t(rule.power, 2 * k - 2)
        if quantiles * sigma * math.sqrt(2 / k) <= distance:
            return k
        k += 1


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

    Where both are shown, as of a candidate slower by 6 % on a quiet phone, it is slower.
    """
    if compared.lower > 1 + rule.margin:
        return True
    return False if compared.upper < 1 + rule.detect else None


def _variance(logs: Sequence[float]) -> float:
    mean = math.fsum(logs) / len(logs)
    return math.fsum((log - mean) ** 2 for log in logs) / (len(logs) - 1)


@lru_cache(maxsize=4096)
def _t(probability: float, degrees_of_freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, probability))
