import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.harness.comparison.canaries import CanaryResult, canary_results
from driftloop.harness.records.observation import Canary, Observation

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


def test_a_phone_that_answers_alike_passes_all_five_and_an_arm_without_any_has_none() -> None:
    found = results(clean())
    assert tuple(found) == NAMES
    assert outcomes(found) == {}
    assert found["again"].numbers == {"largest_difference": 0.0, "limit": 1e-6}
    torch = [observation("torch", index) for index in range(12)]
    other = [one.model_copy(update={"phone": "PHONE2"}) for one in clean()]
    assert [(one.arm, one.phone, one.name) for one in canary_results(torch + clean() + other)] == [
        (ARM, phone, name) for phone in (PHONE, "PHONE2") for name in NAMES
    ]


NOT_FINITE = {"label_logprobs": LABELS | {"wood": math.nan}}
USUAL = {"label_logprobs": labels(20) | {"water": -0.0001}}
LEAK = {"again": "fail", "reversed": "fail"}


@pytest.mark.parametrize(
    ("name", "place", "over", "found", "words"),
    [
        # Another answer to image 1 as the last is a leak.
        ("again", 0, {"label_logprobs": moved(0, 1e-4)}, LEAK, "state leaks"),
        ("again", 0, {"label_logprobs": labels(0) | {"wood": math.nan}}, LEAK, "state leaks"),
        ("again", 0, {"tokens": [token(11)]}, LEAK, "state leaks"),
        ("again", 0, {"tokens": [token(10, -0.001)]}, LEAK, "state leaks"),
        ("again", 0, {"text": "feu"}, LEAK, "state leaks"),
        (
            "twice",
            0,
            {"label_logprobs": moved(0, 0.25)},
            {"twice": "fail"},
            "the same words, a log-probability 0.25 nats away",
        ),
        # An image that the order changes is named.
        ("reversed", 1, {"tokens": [token(99)]}, {"reversed": "fail"}, "1 of 3 images"),
        ("reversed", 1, {"text": "fire"}, {"reversed": "fail"}, "case-01: other words"),
        # A black picture with the answer of one case got another picture's; one that is close to
        # black is answered almost alike, and one that is black itself is not compared with.
        ("black", 0, {"label_logprobs": labels(11)}, {"black": "fail"}, "case-11"),
        ("black", 0, {"label_logprobs": moved(11, 1e-4)}, {}, "differently from every case"),
        (
            "black",
            0,
            {"pixels_sha256": f"{11:064d}", "label_logprobs": labels(11)},
            {},
            "differently from every case",
        ),
        # The usual word for a black picture is only a note.
        ("black", 0, USUAL, {}, "the usual one, water"),
        # A mirror image must move something, unless the image is its own.
        ("mirror", 0, {"label_logprobs": labels(0)}, {"mirror": "fail"}, "change nothing"),
        (
            "mirror",
            0,
            {"label_logprobs": labels(0), "pixels_sha256": f"{0:064d}"},
            {},
            "its own mirror image",
        ),
        # Values that are not finite say nothing about a picture.
        ("black", 0, NOT_FINITE, {"black": "inconclusive"}, "not finite"),
        ("mirror", 0, NOT_FINITE, {"mirror": "inconclusive"}, "not finite"),
        *(
            (name, 0, {"error": fault("decode")}, {name: "inconclusive"}, "no answer: decode")
            for name in ("twice", "reversed", "black", "mirror")
        ),
        (
            "again",  # which is the last image of the reversed session too
            0,
            {"error": fault("decode")},
            {"again": "inconclusive", "reversed": "inconclusive"},
            "no answer: decode",
        ),
    ],
)
def test_another_answer_has_its_outcome_and_says_why(
    name: Canary, place: int, over: dict[str, Any], found: dict[str, str], words: str
) -> None:
    results = changed(name, place, **over)
    assert outcomes(results) == found
    assert words in results[name].why
    kept = results[name]
    assert CanaryResult.model_validate_json(kept.model_dump_json()) == kept, "strict JSON"


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


def test_a_black_picture_with_every_cases_answer_never_arrived() -> None:
    found = results([one.model_copy(update={"label_logprobs": LABELS}) for one in clean()])
    assert outcomes(found) == {"black": "fail", "mirror": "fail"}
    assert "does not reach" in found["black"].why
    assert "usual" not in changed("black", label="fire")["black"].why


@pytest.mark.parametrize("name", ["again", "twice", "black", "mirror"])
def test_a_canary_that_was_not_run_is_inconclusive(name: Canary) -> None:
    found = results([one for one in clean() if one.canary != name])
    assert found[name].outcome == "inconclusive"


def test_without_an_answer_to_image_1_little_can_be_said() -> None:
    seen = clean()
    seen[0] = seen[0].model_copy(update={"error": fault()})
    open_ones = dict.fromkeys(("again", "reversed", "mirror"), "inconclusive")
    assert outcomes(results(seen)) == open_ones
