import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from harness import stats

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
distribution = st.lists(st.floats(-20, 0), min_size=2, max_size=16)


@given(counts)
def test_exact_bounds_are_those_of_statsmodels(count_of: tuple[int, int]) -> None:
    count, n = count_of
    theirs = proportion_confint(count, n, alpha=0.05, method="beta")
    assert stats.clopper_pearson(count, n) == pytest.approx(theirs, abs=1e-9)


def test_bounds_over_nothing_say_nothing() -> None:
    assert stats.clopper_pearson(0, 0) == (0.0, 1.0)


def test_149_cases_without_a_flip_are_what_098_needs() -> None:
    assert stats.lower_bound(148, 148) < 0.98 <= stats.lower_bound(149, 149)


@pytest.mark.parametrize(("count", "n"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(count: int, n: int) -> None:
    with pytest.raises(ValueError, match="not possible"):
        stats.clopper_pearson(count, n)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_that_of_statsmodels(first: int, second: int) -> None:
    if first + second == 0:
        assert stats.mcnemar_exact(0, 0) == 1.0
        return
    theirs = mcnemar([[0, first], [second, 0]], exact=True).pvalue
    assert stats.mcnemar_exact(first, second) == pytest.approx(min(1.0, theirs), abs=1e-9)


def test_mcnemar_is_first_significant_at_six_to_nothing() -> None:
    assert stats.mcnemar_exact(5, 0) > 0.05 > stats.mcnemar_exact(6, 0)


@given(distribution)
def test_kl_of_a_distribution_with_itself_is_nothing(logprobs: list[float]) -> None:
    ours = dict(enumerate(logprobs))
    assert stats.kl_shared(ours, ours) == 0.0


@given(distribution, st.floats(-5, 5))
def test_kl_renormalises_so_that_a_common_shift_does_not_count(
    logprobs: list[float], shift: float
) -> None:
    ours = dict(enumerate(logprobs))
    theirs = {key: value + shift for key, value in ours.items()}
    assert stats.kl_shared(ours, theirs) == pytest.approx(0.0, abs=1e-9)


def test_kl_takes_shared_ids_alone() -> None:
    ours = {1: math.log(0.5), 2: math.log(0.25), 3: math.log(0.25)}
    theirs = {1: math.log(0.25), 2: math.log(0.25), 4: math.log(0.5)}
    expected = 2 / 3 * math.log((2 / 3) / (1 / 2)) + 1 / 3 * math.log((1 / 3) / (1 / 2))
    assert stats.kl_shared(ours, theirs) == pytest.approx(expected)


def test_kl_with_fewer_than_two_shared_ids_is_unknown() -> None:
    assert stats.kl_shared({1: -0.1, 2: -2.0}, {1: -0.1, 3: -2.0}) is None


def test_kl_with_nan_is_infinite_not_small() -> None:
    assert stats.kl_shared({1: -0.1, 2: math.nan}, {1: -0.1, 2: -2.0}) == math.inf
