"""The test that decides on agreement: its errors, its cost, and where it stops."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from harness.stats import sequential
from harness.stats.sequential import SequentialPlan

PLAN = sequential.design()
RUNS = 10_000


def simulated(plan: SequentialPlan, p: float, seed: int) -> tuple[float, float]:
    """Share of rejections and mean number of images over runs whose answers agree in `p`."""
    draws = np.random.default_rng(seed).random((RUNS, plan.most)) < p
    ends = [sequential.decide(plan, run) for run in draws.tolist()]
    assert all(end.outcome != "open" for end in ends)
    rejected = sum(end.outcome == "reject" for end in ends) / RUNS
    return rejected, sum(end.images for end in ends) / RUNS


def test_the_plan_of_98_against_94_needs_fewer_images_than_a_fixed_sample() -> None:
    assert PLAN.most == 342
    assert PLAN.expected_images(0.98) <= 150
    assert PLAN.expected_images(1.0) == 72
    assert max(PLAN.error_rates) <= 0.05


@pytest.mark.parametrize("p", [0.98, 0.94, 0.96, 0.90])
def test_ten_thousand_runs_do_what_was_computed(p: float) -> None:
    rejected, images = simulated(PLAN, p, seed=round(p * 100))
    alpha, beta = PLAN.error_rates
    if p == 0.98:
        assert rejected <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)
        assert rejected == pytest.approx(alpha, abs=3 * math.sqrt(alpha / RUNS))
        assert images <= 150
    if p == 0.94:
        accepted = 1 - rejected
        assert accepted <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)
        assert accepted == pytest.approx(beta, abs=3 * math.sqrt(beta / RUNS))
    assert images == pytest.approx(PLAN.expected_images(p), rel=0.03)


@pytest.mark.parametrize(
    ("accept", "reject", "alpha", "beta", "look"),
    [
        (0.99, 0.97, 0.05, 0.05, 3),
        (0.95, 0.90, 0.05, 0.05, 3),
        (0.98, 0.94, 0.01, 0.01, 3),
        (0.98, 0.94, 0.10, 0.01, 1),
        (0.98, 0.50, 0.05, 0.05, 3),
        (0.90, 0.80, 0.20, 0.20, 5),
    ],
)
def test_every_plan_keeps_to_its_error_rates_and_ends(
    accept: float, reject: float, alpha: float, beta: float, look: int
) -> None:
    plan = sequential.design(accept, reject, alpha, beta, look)
    false_rejects, false_accepts = plan.error_rates
    assert false_rejects <= alpha
    assert false_accepts <= beta
    assert plan.reject_at[-1] == plan.accept_at[-1] + 1
    assert len(plan.reject_at) * look == plan.most
    assert plan.expected_images(accept) < plan.most


@pytest.mark.parametrize(
    ("accept", "reject", "alpha", "beta"),
    [(0.94, 0.98, 0.05, 0.05), (1.0, 0.94, 0.05, 0.05), (0.98, 0.94, 0.0, 0.05)],
)
def test_a_test_that_cannot_be_is_refused(
    accept: float, reject: float, alpha: float, beta: float
) -> None:
    with pytest.raises(ValueError, match="no test"):
        sequential.design(accept, reject, alpha, beta)


def test_a_clean_release_is_accepted_at_the_72nd_image() -> None:
    assert sequential.decide(PLAN, [True] * 71).outcome == "open"
    end = sequential.decide(PLAN, [True] * 300)
    assert (end.outcome, end.images, end.disagreements) == ("accept", 72, 0)


def test_a_session_that_flips_throughout_is_rejected_at_once() -> None:
    end = sequential.decide(PLAN, [False] * 300)
    assert (end.outcome, end.images, end.disagreements) == ("reject", 3, 3)


def test_nothing_is_decided_between_looks() -> None:
    assert sequential.decide(PLAN, [False, False]).outcome == "open"
    assert sequential.decide(PLAN, []).outcome == "open"


def test_what_comes_after_the_decision_does_not_change_it() -> None:
    assert sequential.decide(PLAN, [True] * 72 + [False] * 30).outcome == "accept"


@pytest.mark.parametrize(("images", "disagreements"), [(0, 0), (39, 0), (42, 1), (99, 2), (40, 1)])
def test_so_many_more_images_without_a_disagreement_decide(images: int, disagreements: int) -> None:
    more = PLAN.needed_more(images, disagreements)
    assert more is not None
    agreed = [index >= disagreements * 9 or index % 9 != 0 for index in range(images)]
    assert agreed.count(False) == disagreements
    assert sequential.decide(PLAN, agreed + [True] * more).outcome == "accept"
    assert sequential.decide(PLAN, agreed + [True] * (more - 1)).outcome == "open"


def test_beyond_the_last_number_no_image_helps() -> None:
    assert PLAN.needed_more(339, PLAN.accept_at[-1]) == 3
    assert PLAN.needed_more(339, PLAN.accept_at[-1] + 1) is None


def test_a_fixed_sample_of_259_always_decides_at_nine() -> None:
    plan = sequential.fixed(259)
    assert (plan.accept_at, plan.reject_at) == (9, 10)
    assert plan.outcome(9) == "accept"
    assert plan.outcome(10) == "reject"


def test_a_fixed_sample_of_72_passes_with_none_and_stays_open_with_two() -> None:
    plan = sequential.fixed(72)
    assert [plan.outcome(d) for d in (0, 2, 5)] == ["accept", "open", "reject"]


def test_three_images_never_accept() -> None:
    plan = sequential.fixed(3)
    assert [plan.outcome(d) for d in (0, 1, 2, 3)] == ["open", "open", "reject", "reject"]


@pytest.mark.parametrize("n", [1, 24, 48, 49, 150, 258, 259, 1000, 20_000])
def test_a_fixed_sample_keeps_to_its_error_rates(n: int) -> None:
    plan = sequential.fixed(n)
    assert binom.sf(plan.reject_at - 1, n, 0.02) <= 0.05
    assert binom.cdf(plan.accept_at, n, 0.06) <= 0.05
    assert plan.error_rates == pytest.approx(
        (binom.sf(plan.reject_at - 1, n, 0.02), binom.cdf(plan.accept_at, n, 0.06)), abs=1e-9
    )


def test_a_fixed_sample_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no test"):
        sequential.fixed(0)
