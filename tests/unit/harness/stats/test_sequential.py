"""The test that decides on agreement: its errors, its cost, and where it stops."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from driftloop.harness.stats import sequential
from driftloop.harness.stats.sequential import Decision, SequentialPlan

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


@pytest.mark.parametrize(
    ("agreed", "end"),
    [
        ([True] * 71, Decision("open", 71, 0)),
        ([True] * 300, Decision("accept", 72, 0)),
        ([False] * 300, Decision("reject", 3, 3)),
        # Nothing is decided between looks, and nothing later changes a decision.
        ([False, False], Decision("open", 2, 2)),
        ([], Decision("open", 0, 0)),
        ([True] * 72 + [False] * 30, Decision("accept", 72, 0)),
    ],
)
def test_it_decides_at_the_first_look_that_can(agreed: list[bool], end: Decision) -> None:
    assert sequential.decide(PLAN, agreed) == end


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


@pytest.mark.parametrize(
    ("images", "outcomes"),
    [
        (259, {9: "accept", 10: "reject"}),
        (72, {0: "accept", 2: "open", 5: "reject"}),
        (3, {0: "open", 1: "open", 2: "reject", 3: "reject"}),
    ],
)
def test_a_fixed_sample_decides_by_its_disagreements(
    images: int, outcomes: dict[int, sequential.Outcome]
) -> None:
    plan = sequential.fixed(images)
    assert {count: plan.outcome(count) for count in outcomes} == outcomes


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
