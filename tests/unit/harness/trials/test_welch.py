"""The test of a latency trial: how many runs it needs, and how often it is wrong."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from harness.gates_file import TrialRule
from harness.trials import plan, welch
from harness.trials.plan import Contender, Medians

RULE = TrialRule()
TRIALS = 1000


def series(sigma: float, n: int, seed: int, factor: float = 1.0) -> list[float]:
    rng = random.Random(seed)
    return [100.0 * factor * math.exp(rng.gauss(0.0, sigma)) for _ in range(n)]


def simulated(sigma: float, slower: float, seed: int, drift: float = 0.0) -> Counter[bool | None]:
    """What whole trials, noise floor and all, say of a candidate slower by that share.

    `drift`: by which share every run is slower than the one before it.
    """
    rng, verdicts = random.Random(seed), Counter[bool | None]()
    for _ in range(TRIALS):
        floor: list[float] = []
        trial: dict[Contender, list[float]] = {"baseline": [], "candidate": []}
        taken = 0
        while (step := plan.next_step(Medians(floor, trial), RULE)) is not None:
            log = rng.gauss(0.0, sigma) + taken * drift
            log += math.log1p(slower) if step.contender == "candidate" else 0.0
            (floor if step.phase == "floor" else trial[step.contender]).append(math.exp(log))
            taken += 1
        compared = welch.compare(trial["baseline"], trial["candidate"], RULE)
        verdicts[welch.slower(compared, RULE)] += 1
    return verdicts


def test_the_bounds_are_those_of_scipy() -> None:
    baseline, candidate = series(0.03, 7, 1), series(0.05, 5, 2, factor=1.1)
    compared = welch.compare(baseline, candidate, RULE)
    scipy = stats.ttest_ind(np.log(candidate), np.log(baseline), equal_var=False)
    low = scipy.confidence_interval(1 - 2 * RULE.level).low
    high = scipy.confidence_interval(2 * RULE.power - 1).high
    assert compared.lower == pytest.approx(math.exp(low))
    assert compared.upper == pytest.approx(math.exp(high))
    assert compared.ratio == pytest.approx(stats.gmean(candidate) / stats.gmean(baseline))


def test_runs_that_do_not_scatter_leave_no_doubt() -> None:
    compared = welch.compare([100.0] * 4, [105.0] * 4, RULE)
    assert compared.lower == compared.upper == pytest.approx(1.05)


def test_the_spread_is_about_each_series_own_mean() -> None:
    apart = welch.spread([90.0, 100.0], [900.0, 1000.0, 1000.0])
    together = welch.spread([90.0, 100.0], [90.0, 100.0, 100.0])
    assert apart.sigma == pytest.approx(together.sigma)
    assert apart.degrees_of_freedom == 3
    with pytest.raises(ValueError, match="two runs"):
        welch.spread([90.0], [])


def test_noisier_phones_and_closer_limits_need_more_runs() -> None:
    assert welch.runs_needed(0.0, RULE) == RULE.min_runs
    needed = [welch.runs_needed(sigma, RULE) for sigma in (0.01, 0.02, 0.03, 0.05, 0.08)]
    assert needed == [4, 6, 10, 24, 59]
    assert welch.runs_needed(0.02, TrialRule(detect=0.05)) > needed[1]
    assert welch.runs_needed(0.02, TrialRule(level=0.05, power=0.9)) < needed[1]


@pytest.mark.parametrize("sigma", [0.02, 0.05])
def test_ten_per_cent_is_found_and_nothing_is_no_alarm(sigma: float) -> None:
    none, tenth = simulated(sigma, 0.0, seed=3), simulated(sigma, 0.10, seed=4)
    assert none[True] == 0
    assert none[False] >= 0.98 * TRIALS
    assert tenth[True] >= 0.96 * TRIALS
    assert tenth[False] <= 0.04 * TRIALS


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.08])
def test_what_is_slower_by_the_margin_is_hardly_ever_failed(sigma: float) -> None:
    assert simulated(sigma, RULE.margin, seed=5)[True] <= 0.02 * TRIALS


def test_where_too_few_runs_are_allowed_there_is_doubt_and_no_more_error() -> None:
    assert welch.runs_needed(0.08, RULE) > RULE.max_runs
    none, tenth = simulated(0.08, 0.0, seed=6), simulated(0.08, 0.10, seed=7)
    assert none[True] <= 0.002 * TRIALS
    assert tenth[False] <= 0.04 * TRIALS
    assert tenth[None] > 0.1 * TRIALS


def test_a_phone_that_slows_down_steadily_raises_no_alarm_and_hides_nothing() -> None:
    drifting = {"sigma": 0.02, "drift": 0.005}
    assert simulated(slower=0.0, seed=8, **drifting)[True] == 0
    assert simulated(slower=0.10, seed=9, **drifting)[False] == 0
