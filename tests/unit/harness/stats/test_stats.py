import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from driftloop.harness import stats

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
distribution = st.lists(st.floats(-20, 0), min_size=2, max_size=16)


@given(counts)
def test_exact_bounds_are_those_of_statsmodels(count_of: tuple[int, int]) -> None:
    count, n = count_of
    theirs = proportion_confint(count, n, alpha=0.05, method="beta")
    assert stats.clopper_pearson(count, n) == pytest.approx(theirs, abs=1e-9)


def test_149_cases_without_a_flip_are_what_098_needs_and_none_say_nothing() -> None:
    assert stats.clopper_pearson(0, 0) == (0.0, 1.0)
    assert stats.lower_bound(148, 148) < 0.98 <= stats.lower_bound(149, 149)


@pytest.mark.parametrize(("count", "n"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(count: int, n: int) -> None:
    with pytest.raises(ValueError, match="not possible"):
        stats.clopper_pearson(count, n)


@given(st.integers(1, 400), st.sampled_from([0.5, 0.9]), st.sampled_from([0.9, 0.95]))
def test_bounds_of_a_quantile_hold_as_often_as_they_say(
    n: int, q: float, confidence: float
) -> None:
    low, high = stats.quantile_bounds(range(1, n + 1), q, confidence)  # only ranks matter
    assert low is None or binom.sf(low - 1, n, q) >= confidence - 1e-9
    assert high is None or binom.cdf(high - 1, n, q) >= confidence - 1e-9


@pytest.mark.parametrize(("confidence", "fewest"), [(0.9, 22), (0.95, 29)])
def test_a_90th_percentile_has_an_upper_bound_from_so_many_values_on(
    confidence: float, fewest: int
) -> None:
    values = list(range(fewest))
    assert stats.quantile_bounds(values[1:], 0.9, confidence)[1] is None
    assert stats.quantile_bounds(values, 0.9, confidence)[1] == fewest - 1
    assert stats.fewest_for_quantile(0, 0.9, confidence) == fewest


@pytest.mark.parametrize("above", [1, 2, 5])
def test_values_above_a_limit_need_so_many_more_below_it(above: int) -> None:
    fewest = stats.fewest_for_quantile(above, 0.9, 0.95)
    for n, held in ((fewest, True), (fewest - 1, False)):
        values = [1.0] * (n - above) + [2.0] * above
        high = stats.quantile_bounds(values, 0.9, 0.95)[1]
        assert (high == 1.0) is held


def test_one_value_bounds_a_90th_percentile_from_below_alone() -> None:
    assert stats.quantile_bounds([3.0], 0.9, 0.9) == (3.0, None)
    assert stats.quantile_bounds([], 0.9, 0.9) == (None, None)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_that_of_statsmodels(first: int, second: int) -> None:
    if first + second == 0:
        assert stats.mcnemar_exact(0, 0) == 1.0
        return
    theirs = mcnemar([[0, first], [second, 0]], exact=True).pvalue
    assert stats.mcnemar_exact(first, second) == pytest.approx(min(1.0, theirs), abs=1e-9)


def test_mcnemar_is_first_significant_at_six_to_nothing() -> None:
    assert stats.mcnemar_exact(5, 0) > 0.05 > stats.mcnemar_exact(6, 0)


@given(distribution, st.floats(-5, 5))
def test_kl_renormalises_so_that_a_common_shift_does_not_count(
    logprobs: list[float], shift: float
) -> None:
    ours = dict(enumerate(logprobs))
    theirs = {key: value + shift for key, value in ours.items()}
    assert stats.kl_shared(ours, ours) == 0.0
    assert stats.kl_shared(ours, theirs) == pytest.approx(0.0, abs=1e-9)


def test_kl_takes_shared_ids_alone() -> None:
    ours = {1: math.log(0.5), 2: math.log(0.25), 3: math.log(0.25)}
    theirs = {1: math.log(0.25), 2: math.log(0.25), 4: math.log(0.5)}
    expected = 2 / 3 * math.log((2 / 3) / (1 / 2)) + 1 / 3 * math.log((1 / 3) / (1 / 2))
    assert stats.kl_shared(ours, theirs) == pytest.approx(expected)


def test_kl_with_fewer_than_two_shared_ids_is_unknown_and_with_nan_infinite() -> None:
    assert stats.kl_shared({1: -0.1, 2: -2.0}, {1: -0.1, 3: -2.0}) is None
    assert stats.kl_shared({1: -0.1, 2: math.nan}, {1: -0.1, 2: -2.0}) == math.inf
