import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.comparison.canaries import CanaryResult, canary_results
from harness.records.observation import Canary, Observation

from ..run_factory import LABELS, fault, observation, token

ARM, PHONE = "phone:q8_0+app", "PHONE1"
NAMES: tuple[Canary, ...] = ("again", "twice", "reversed", "black", "mirror")


def labels(of: int) -> dict[str, float]:
    """As another picture gives them."""
    return {label: value - of / 7 for label, value in LABELS.items()}


def answer(index: int, **over: Any) -> Observation:  # noqa: ANN401
    """The answer to case `index`, as the phone always gives it."""
    content: dict[str, Any] = {"label_logprobs": labels(index), "tokens": [token(10, -index / 9)]}
    return observation(ARM, index, PHONE, **(content | over))


def canary(
    name: Canary,
    session: int,
    position: int,
    of: int,
    **over: Any,  # noqa: ANN401
) -> Observation:
    place = {"canary": name, "session": session, "position": position}
    return answer(of, **({"case_id": f"case-{of:02d}"} | place | over))


def clean() -> list[Observation]:
    """Four sessions, then the canaries in sessions 4 and 5."""
    cases = [answer(index) for index in range(12)]
    probes = [
        canary("black", 4, 0, 20, pixels_sha256="b" * 64, case_id="black"),
        canary("mirror", 4, 1, 21, pixels_sha256="m" * 64, case_id="case-00 mirrored"),
        canary("twice", 4, 2, 0, pixels_sha256=f"{0:064d}"),
        canary("twice", 4, 3, 0, pixels_sha256=f"{0:064d}"),
    ]
    turned = [canary("reversed", 5, 0, 2), canary("reversed", 5, 1, 1), canary("again", 5, 2, 0)]
    return [*cases, *probes, *turned]


def results(seen: list[Observation]) -> dict[str, CanaryResult]:
    return {one.name: one for one in canary_results(seen)}


def changed(name: Canary, place: int = 0, **over: object) -> dict[str, CanaryResult]:
    """The results where one canary's answer is another."""
    seen = clean()
    index = [i for i, one in enumerate(seen) if one.canary == name][place]
    seen[index] = seen[index].model_copy(update=over)
    return results(seen)


def moved(of: int, nats: float) -> dict[str, float]:
    return {label: value + nats for label, value in labels(of).items()}


def outcomes(found: dict[str, CanaryResult]) -> dict[str, str]:
    return {name: one.outcome for name, one in found.items() if one.outcome != "pass"}


def test_a_phone_that_answers_alike_passes_all_five() -> None:
    found = results(clean())
    assert tuple(found) == NAMES
    assert outcomes(found) == {}
    assert {(one.arm, one.phone) for one in found.values()} == {(ARM, PHONE)}
    assert found["again"].numbers == {"largest_difference": 0.0, "limit": 1e-6}


def test_arms_that_run_no_canaries_have_no_results() -> None:
    torch = [observation("torch", index) for index in range(12)]
    assert len(canary_results(torch)) == 0
    assert {one.arm for one in canary_results(torch + clean())} == {ARM}


def test_arms_and_phones_are_judged_apart() -> None:
    other = [one.model_copy(update={"phone": "PHONE2"}) for one in clean()]
    found = canary_results(clean() + other)
    assert [(one.phone, one.name) for one in found] == [
        (phone, name) for phone in ("PHONE1", "PHONE2") for name in NAMES
    ]


@pytest.mark.parametrize(
    "over",
    [
        {"label_logprobs": moved(0, 1e-4)},
        {"label_logprobs": labels(0) | {"wood": math.nan}},
        {"tokens": [token(11)]},
        {"tokens": [token(10, -0.001)]},
        {"text": "feu"},
    ],
)
def test_another_answer_to_image_1_as_the_last_is_a_leak(over: dict[str, Any]) -> None:
    found = changed("again", **over)
    assert outcomes(found) == {"again": "fail", "reversed": "fail"}
    assert "state leaks" in found["again"].why


def test_a_phone_that_is_never_the_same_is_no_leak() -> None:
    seen = clean()
    seen[-1] = seen[-1].model_copy(update={"label_logprobs": moved(0, 1e-4)})
    seen[15] = seen[15].model_copy(update={"label_logprobs": moved(0, 2e-4)})
    found = results(seen)
    assert outcomes(found) == {"again": "inconclusive", "twice": "fail", "reversed": "fail"}


@given(st.floats(0, 1e-2))
def test_a_tiny_difference_between_two_runs_is_noise_up_to_its_limit(nats: float) -> None:
    found = changed("twice", label_logprobs=moved(0, nats))["twice"]
    assert found.numbers["largest_difference"] == pytest.approx(nats, abs=1e-12)
    assert found.outcome == ("pass" if found.numbers["largest_difference"] <= 1e-5 else "fail")


def test_the_size_of_a_difference_is_said() -> None:
    found = changed("twice", label_logprobs=moved(0, 0.25))["twice"]
    assert "the same words, a log-probability 0.25 nats away" in found.why


def test_an_image_that_the_order_changes_is_named() -> None:
    found = changed("reversed", 1, tokens=[token(99)], text="fire")
    assert outcomes(found) == {"reversed": "fail"}
    assert "1 of 3 images" in found["reversed"].why
    assert "case-01: other words" in found["reversed"].why


def test_a_black_picture_with_every_cases_answer_never_arrived() -> None:
    alike = [one.model_copy(update={"label_logprobs": LABELS}) for one in clean()]
    found = results(alike)
    assert outcomes(found) == {"black": "fail", "mirror": "fail"}
    assert "does not reach" in found["black"].why


def test_a_black_picture_with_one_cases_answer_got_another_pictures() -> None:
    found = changed("black", label_logprobs=labels(11))
    assert outcomes(found) == {"black": "fail"}
    assert "case-11" in found["black"].why


def test_a_dark_photograph_may_be_answered_almost_as_black() -> None:
    assert outcomes(changed("black", label_logprobs=moved(11, 1e-4))) == {}


def test_a_case_that_is_black_itself_is_not_compared_with() -> None:
    black = {"pixels_sha256": f"{11:064d}", "label_logprobs": labels(11)}
    assert outcomes(changed("black", **black)) == {}


def test_the_usual_word_for_a_black_picture_is_only_a_note() -> None:
    sure = labels(20) | {"water": -0.0001}
    found = changed("black", label_logprobs=sure)["black"]
    assert found.outcome == "pass"
    assert "the usual one, water" in found.why
    assert "usual" not in changed("black", label="fire")["black"].why


def test_a_mirror_image_that_moves_nothing_fails() -> None:
    found = changed("mirror", label_logprobs=labels(0))
    assert outcomes(found) == {"mirror": "fail"}


def test_a_symmetric_image_is_its_own_mirror_image() -> None:
    found = changed("mirror", label_logprobs=labels(0), pixels_sha256=f"{0:064d}")
    assert outcomes(found) == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_canary_without_an_answer_is_inconclusive(name: Canary) -> None:
    broken = outcomes(changed(name, error=fault("decode")))
    assert broken.pop(name) == "inconclusive"
    # The last image of the reversed session is image 1 again.
    assert broken == ({"reversed": "inconclusive"} if name == "again" else {})


@pytest.mark.parametrize("name", ["again", "twice", "black", "mirror"])
def test_a_canary_that_was_not_run_is_inconclusive(name: Canary) -> None:
    found = results([one for one in clean() if one.canary != name])
    assert found[name].outcome == "inconclusive"


def test_without_an_answer_to_image_1_little_can_be_said() -> None:
    seen = clean()
    seen[0] = seen[0].model_copy(update={"error": fault()})
    assert outcomes(results(seen)) == {
        "again": "inconclusive",
        "reversed": "inconclusive",
        "mirror": "inconclusive",
    }


@pytest.mark.parametrize("name", ["black", "mirror"])
def test_what_is_no_number_tells_nothing_of_a_picture(name: Canary) -> None:
    found = changed(name, label_logprobs=LABELS | {"wood": math.nan})
    assert outcomes(found) == {name: "inconclusive"}


def test_a_result_is_strict_json_and_reads_back() -> None:
    found = changed("again", label_logprobs=LABELS | {"wood": math.nan})["again"]
    assert CanaryResult.model_validate_json(found.model_dump_json()) == found
