"""Which run of a latency trial comes next."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from harness.gates_file import TrialRule
from harness.trials import plan, welch
from harness.trials.plan import Contender, Medians

RULE = TrialRule(floor_runs=4, min_runs=3, max_runs=12)
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
    needed = welch.runs_needed(welch.spread(between).sigma, RULE)
    assert RULE.min_runs < needed < RULE.max_runs
    assert len(whole(between)[0]) == 2 * needed
    assert RULE.max_runs < welch.runs_needed(welch.spread(NOISY).sigma, RULE)
    assert len(whole(NOISY)[0]) == 2 * RULE.max_runs


def test_a_noise_floor_taken_in_a_quiet_moment_is_made_up_for_once() -> None:
    turns, medians = whole(QUIET, noise=[100.0, 104.0])
    assert 2 * RULE.min_runs < len(turns) < 2 * RULE.max_runs
    assert plan.noise(medians, RULE).sigma > welch.spread(QUIET).sigma
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
