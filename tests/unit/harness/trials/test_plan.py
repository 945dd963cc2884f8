"""Which run of a latency trial comes next, how many it needs, and how often its test is wrong."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from driftloop.harness.gates_file import TrialRule
from driftloop.harness.trials import plan
from driftloop.harness.trials.plan import Contender, Medians

RULE = TrialRule(floor_runs=4, min_runs=3, max_runs=12)
DEFAULT = TrialRule()
TRIALS = 1000
QUIET = [100.0, 101.0, 100.0, 101.0]
NOISY = [100.0, 110.0, 100.0, 110.0]
HOPELESS = [100.0, 300.0, 100.0, 300.0]


def whole(
    floor: Sequence[float], noise: Sequence[float] = (100.0,)
) -> tuple[list[Contender], Medians]:
    """A trial's turns, whose runs take `noise` in a circle, and its medians at the end."""
    turns: list[Contender] = []
    trial: dict[Contender, list[float]] = {"baseline": [], "candidate": []}
    medians = Medians(floor, trial)
    while (step := plan.next_step(medians, RULE)) is not None:
        assert (step.phase, step.done) == ("trial", len(turns))
        side = trial[step.contender]
        side.append(noise[len(side) % len(noise)])
        turns.append(step.contender)
    return turns, medians


def test_the_noise_floor_comes_first_from_the_baseline_alone() -> None:
    medians = Medians([100.0] * 3, {"baseline": [], "candidate": []})
    step = plan.next_step(medians, RULE)
    assert step == plan.Step("floor", "baseline", 3, 4)


def test_both_take_turns_so_that_a_steady_change_holds_up_both_alike() -> None:
    turns, _ = whole(NOISY)
    assert turns[:8] == ["baseline", "candidate", "candidate", "baseline"] * 2
    places: dict[str, list[int]] = {"baseline": [], "candidate": []}
    for place, turn in enumerate(turns[:8]):
        places[turn].append(place)
    assert sum(places["baseline"]) == sum(places["candidate"])


def test_a_quiet_phone_takes_the_fewest_runs() -> None:
    turns, medians = whole(QUIET)
    assert turns.count("baseline") == turns.count("candidate") == RULE.min_runs
    assert plan.noise(medians, RULE).runs_needed <= RULE.min_runs


def test_a_noisy_phone_takes_what_its_noise_asks_for_up_to_what_is_allowed() -> None:
    between = [100.0, 103.0, 100.0, 103.0]
    needed = plan.runs_needed(plan.spread(between), RULE)
    assert RULE.min_runs < needed < RULE.max_runs
    assert len(whole(between)[0]) == 2 * needed
    assert RULE.max_runs < plan.runs_needed(plan.spread(NOISY), RULE)
    assert len(whole(NOISY)[0]) == 2 * RULE.max_runs


def test_a_noise_floor_taken_in_a_quiet_moment_is_made_up_for_once() -> None:
    turns, medians = whole(QUIET, noise=[100.0, 104.0])
    assert 2 * RULE.min_runs < len(turns) < 2 * RULE.max_runs
    assert plan.noise(medians, RULE).sigma > plan.spread(QUIET)
    assert len(turns) == 2 * plan.noise(medians, RULE).runs_needed


def test_a_noise_that_no_allowed_number_of_runs_is_enough_for_costs_the_fewest_runs() -> None:
    turns, medians = whole(HOPELESS, noise=[100.0, 300.0])
    assert len(turns) == 2 * RULE.min_runs
    assert plan.noise(medians, RULE).runs_needed > RULE.max_runs


@pytest.mark.parametrize(
    "limits", [{"margin": 0.1}, {"min_runs": 40}, {"level": 0.0}, {"allowed": 3}]
)
def test_limits_that_cannot_be_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        TrialRule.model_validate(limits)


# Whether the candidate is slower


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
        while (step := plan.next_step(Medians(floor, trial), DEFAULT)) is not None:
            log = rng.gauss(0.0, sigma) + taken * drift
            log += math.log1p(slower) if step.contender == "candidate" else 0.0
            (floor if step.phase == "floor" else trial[step.contender]).append(math.exp(log))
            taken += 1
        compared = plan.compare(trial["baseline"], trial["candidate"], DEFAULT)
        verdicts[plan.slower(compared, DEFAULT)] += 1
    return verdicts


def test_the_bounds_are_those_of_scipy() -> None:
    baseline, candidate = series(0.03, 7, 1), series(0.05, 5, 2, factor=1.1)
    compared = plan.compare(baseline, candidate, DEFAULT)
    scipy = stats.ttest_ind(np.log(candidate), np.log(baseline), equal_var=False)
    low = scipy.confidence_interval(1 - 2 * DEFAULT.level).low
    high = scipy.confidence_interval(2 * DEFAULT.power - 1).high
    assert compared.lower == pytest.approx(math.exp(low))
    assert compared.upper == pytest.approx(math.exp(high))
    assert compared.ratio == pytest.approx(stats.gmean(candidate) / stats.gmean(baseline))


def test_runs_that_do_not_scatter_leave_no_doubt() -> None:
    compared = plan.compare([100.0] * 4, [105.0] * 4, DEFAULT)
    assert compared.lower == compared.upper == pytest.approx(1.05)


def test_the_spread_is_about_each_series_own_mean() -> None:
    apart = plan.spread([90.0, 100.0], [900.0, 1000.0, 1000.0])
    together = plan.spread([90.0, 100.0], [90.0, 100.0, 100.0])
    assert apart == pytest.approx(together)
    with pytest.raises(ValueError, match="two runs"):
        plan.spread([90.0], [])


def test_noisier_phones_and_closer_limits_need_more_runs() -> None:
    assert plan.runs_needed(0.0, DEFAULT) == DEFAULT.min_runs
    needed = [plan.runs_needed(sigma, DEFAULT) for sigma in (0.01, 0.02, 0.03, 0.05, 0.08)]
    assert needed == [4, 6, 10, 24, 59]
    assert plan.runs_needed(0.02, TrialRule(detect=0.05)) > needed[1]
    assert plan.runs_needed(0.02, TrialRule(level=0.05, power=0.9)) < needed[1]


@pytest.mark.parametrize("sigma", [0.02, 0.05])
def test_ten_per_cent_is_found_and_nothing_is_no_alarm(sigma: float) -> None:
    none, tenth = simulated(sigma, 0.0, seed=3), simulated(sigma, 0.10, seed=4)
    assert none[True] == 0
    assert none[False] >= 0.98 * TRIALS
    assert tenth[True] >= 0.96 * TRIALS
    assert tenth[False] <= 0.04 * TRIALS


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.08])
def test_what_is_slower_by_the_margin_is_hardly_ever_failed(sigma: float) -> None:
    assert simulated(sigma, DEFAULT.margin, seed=5)[True] <= 0.02 * TRIALS


def test_where_too_few_runs_are_allowed_there_is_doubt_and_no_more_error() -> None:
    assert plan.runs_needed(0.08, DEFAULT) > DEFAULT.max_runs
    none, tenth = simulated(0.08, 0.0, seed=6), simulated(0.08, 0.10, seed=7)
    assert none[True] <= 0.002 * TRIALS
    assert tenth[False] <= 0.04 * TRIALS
    assert tenth[None] > 0.1 * TRIALS


def test_a_phone_that_slows_down_steadily_raises_no_alarm_and_hides_nothing() -> None:
    drifting = {"sigma": 0.02, "drift": 0.005}
    assert simulated(slower=0.0, seed=8, **drifting)[True] == 0
    assert simulated(slower=0.10, seed=9, **drifting)[False] == 0
