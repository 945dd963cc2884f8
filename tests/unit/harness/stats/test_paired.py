"""How much accuracy was lost: bounds that are honest for few cases."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.harness.stats import paired

MARGIN = 0.05

pairs = st.integers(1, 200).flatmap(
    lambda n: st.tuples(st.integers(0, n // 2), st.integers(0, n // 2), st.just(n))
)


def false_passes(n: int, gained: float, margin: float) -> float:
    """How often so many cases pass where the true loss is the margin itself, summed exactly."""
    lost = gained + margin
    same = 1 - lost - gained
    total = 0.0
    for down in range(n + 1):
        for up in range(n - down, -1, -1):
            if paired.loss_bounds(down, up, n)[1] > margin:
                break
            ways = math.lgamma(n + 1) - sum(math.lgamma(k + 1) for k in (down, up, n - down - up))
            odds = [(down, lost), (up, gained), (n - down - up, same)]
            if any(count and not share for count, share in odds):
                continue
            total += math.exp(ways + sum(k * math.log(share) for k, share in odds if k))
    return total


@pytest.mark.parametrize("gained", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("n", [40, 70, 72])
def test_a_loss_of_the_margin_is_seldom_taken_for_less(n: int, gained: float) -> None:
    assert false_passes(n, gained, MARGIN) <= 0.05


@given(pairs)
def test_bounds_enclose_what_was_seen_and_mirror_each_other(case: tuple[int, int, int]) -> None:
    lost, gained, n = case
    low, high = paired.loss_bounds(lost, gained, n)
    assert -1 <= low <= (lost - gained) / n <= high <= 1
    assert paired.loss_bounds(gained, lost, n) == pytest.approx((-high, -low))


@given(pairs)
def test_one_more_loss_raises_both_bounds(case: tuple[int, int, int]) -> None:
    lost, gained, n = case
    if lost + gained == n:
        return
    low, high = paired.loss_bounds(lost, gained, n)
    more_low, more_high = paired.loss_bounds(lost + 1, gained, n)
    assert more_low >= low
    assert more_high >= high


def test_70_cases_without_a_difference_bound_the_loss_by_the_margin_and_none_do_not() -> None:
    assert paired.loss_bounds(0, 0, 0) == (-1.0, 1.0)
    assert paired.loss_bounds(0, 0, 69)[1] > MARGIN >= paired.loss_bounds(0, 0, 70)[1]
    assert paired.fewest_for_margin(0, 0, 0, MARGIN) == 70
    assert paired.fewest_for_margin(0, 0, 24, MARGIN) == 70


@pytest.mark.parametrize(("lost", "gained", "n"), [(1, 0, 72), (2, 1, 60), (4, 4, 100)])
def test_so_many_cases_are_enough_at_the_same_rate_and_one_fewer_is_not(
    lost: int, gained: int, n: int
) -> None:
    fewest = paired.fewest_for_margin(lost, gained, n, MARGIN)
    assert fewest is not None
    if fewest == n:
        return

    def bound(cases: int) -> float:
        return paired.loss_bounds(lost / n * cases, gained / n * cases, cases)[1]

    assert bound(fewest) <= MARGIN < bound(fewest - 1)


def test_no_number_of_cases_helps_where_the_margin_is_lost_already() -> None:
    assert paired.fewest_for_margin(5, 0, 72, MARGIN) is None
