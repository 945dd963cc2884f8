"""Gates on a hop's answers, by the sequential test and by shares."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import gates_file
from harness.gates_file import AgreementRule
from harness.judgement import agreement
from harness.judgement.agreement import decide_share

POINT = AgreementRule(decide_on="point", confidence=0.95, min_cases=24)
BOUND = POINT.model_copy(update={"decide_on": "lower_bound"})


@pytest.mark.parametrize(
    ("count", "of", "minimum", "outcome"),
    [
        (24, 24, 0.94, "pass"),
        (23, 24, 0.94, "pass"),
        (22, 24, 0.94, "fail"),
        (23, 23, 0.94, "inconclusive"),
        (3, 3, 0.94, "inconclusive"),
        (2, 3, 0.94, "inconclusive"),
        (0, 3, 0.94, "fail"),
        (41, 50, 1 - 0.18, "pass"),
        (24, 24, 1.0, "pass"),
        (23, 24, 1.0, "fail"),
        (0, 0, 0.94, "inconclusive"),
    ],
)
def test_the_point_decides_from_enough_cases_on(
    count: int, of: int, minimum: float, outcome: str
) -> None:
    assert decide_share(count, of, minimum, POINT)[0] == outcome


@pytest.mark.parametrize(
    ("count", "of", "minimum", "outcome"),
    [
        (148, 148, 0.98, "inconclusive"),
        (149, 149, 0.98, "pass"),
        (140, 149, 0.98, "fail"),
        (24, 24, 0.94, "inconclusive"),
        (24, 24, 1.0, "pass"),
        (148, 149, 1.0, "fail"),
    ],
)
def test_the_lower_bound_decides_when_it_is_asked_to(
    count: int, of: int, minimum: float, outcome: str
) -> None:
    assert decide_share(count, of, minimum, BOUND)[0] == outcome


@pytest.mark.parametrize(
    ("rule", "count", "of", "outcome"),
    [
        (POINT, 7, 7, "inconclusive"),
        (POINT, 8, 8, "pass"),
        (POINT, 7, 8, "fail"),
        (POINT, 0, 0, "inconclusive"),
        (BOUND, 49, 49, "inconclusive"),
        (BOUND, 50, 50, "pass"),
    ],
)
def test_sessions_decide_from_as_many_images_on_as_cases_do(
    rule: AgreementRule, count: int, of: int, outcome: str
) -> None:
    minimum = 0.98**3
    decided, why = decide_share(count, of, minimum, rule, noun="session", images=3)
    assert decided == outcome
    if rule is POINT and of == 7:
        assert "fewer than 8 sessions" in why


@given(
    st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))),
    st.floats(0.5, 1.0),
    st.sampled_from([POINT, BOUND]),
)
def test_one_more_agreement_never_makes_it_worse(
    count_of: tuple[int, int], minimum: float, rule: AgreementRule
) -> None:
    count, of = count_of
    rank = ["fail", "inconclusive", "pass"]
    before = decide_share(count, of, minimum, rule)[0]
    after = decide_share(count + 1, of, minimum, rule)[0]
    assert rank.index(after) >= rank.index(before)


def test_the_gates_of_a_rule_are_those_it_yields() -> None:
    assert agreement.names(POINT) == (
        "agreement",
        "session_agreement",
        "real_flips",
        "numeric_flips",
    )
    assert "real_flips" not in agreement.names(gates_file.load().agreement)
