import math
from typing import Any

import pytest

from harness.stages import (
    CaseComparison,
    Tolerance,
    compare_case,
    first_divergence,
    label_differences,
    label_margin,
)

from .run_factory import LABELS, flipped, observation, token

TOLERANCE = Tolerance(label_logprob=0.01, flip_margin=0.02)


def compared(**candidate: object) -> CaseComparison:
    return compare_case(observation(), observation("desktop:f16", **candidate), TOLERANCE)


def test_equal_answers_have_no_blame() -> None:
    case = compared()
    assert case.blame is None
    assert case.first_step_kl == 0.0
    assert case.flip is None


@pytest.mark.parametrize(
    ("changed", "blame"),
    [
        ({"pixels_sha256": "f" * 64}, "pixels"),
        ({"grid": (2, 2)}, "tile"),
        ({"image_tokens": 8}, "tile"),
        ({"prompt_ids": [1, -1, 2]}, "tokens"),
        ({"label_logprobs": LABELS | {"wood": -5.02}}, "prefill"),
        ({"tokens": [token(10), token(3)]}, "decode"),
        ({"text": "Water"}, "text"),
        ({"label": "fire"}, "label"),
    ],
)
def test_blame_is_the_stage_that_differs(changed: dict[str, Any], blame: str) -> None:
    assert compared(**changed).blame == blame


def test_blame_is_the_first_of_all_stages_that_differ() -> None:
    case = compared(
        prompt_ids=[1], label_logprobs=LABELS | {"wood": -9.0}, tokens=[token(3)], text="fire"
    )
    assert case.blame == "tokens"


def test_a_stage_that_one_arm_does_not_tell_takes_no_blame() -> None:
    case = compared(pixels_sha256=None, grid=None, image_tokens=None)
    assert (case.pixels_equal, case.grid_equal, case.image_tokens_equal) == (None, None, None)
    assert case.blame is None


def test_a_difference_within_tolerance_takes_no_blame() -> None:
    assert compared(label_logprobs=LABELS | {"wood": -5.009}).blame is None


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_logprob_that_is_no_number_never_passes(broken: float) -> None:
    case = compared(label_logprobs=LABELS | {"wood": broken})
    assert case.blame == "prefill"
    assert case.label_logprob_differences["wood"] == math.inf


def test_nan_on_both_sides_is_no_agreement() -> None:
    assert label_differences({"wood": math.nan}, {"wood": math.nan}) == {"wood": math.inf}


def test_an_impossible_label_on_both_sides_is_agreement() -> None:
    assert label_differences({"wood": -math.inf}, {"wood": -math.inf}) == {"wood": 0.0}


def test_margin_is_best_minus_second() -> None:
    assert label_margin(LABELS) == pytest.approx(2.9)
    assert label_margin({"wood": -1.0}) is None
    assert label_margin({"wood": math.nan, "fire": -1.0}) is None


def test_answers_part_at_the_first_token_that_differs_with_each_sides_preference() -> None:
    ours = [token(1), token(2, -0.5, {2: -0.5, 3: -0.75})]
    theirs = [token(1), token(3, -0.25, {3: -0.25, 2: -1.25})]
    parted = first_divergence(ours, theirs)
    assert parted is not None
    assert (parted.index, parted.reference_id, parted.candidate_id) == (1, 2, 3)
    assert parted.reference_margin == pytest.approx(0.25)
    assert parted.candidate_margin == pytest.approx(1.0)


def test_a_token_outside_the_others_top_has_no_margin() -> None:
    parted = first_divergence([token(1)], [token(50)])
    assert parted is not None
    assert parted.reference_margin is None


def test_an_answer_that_ends_earlier_parts_where_it_ended() -> None:
    parted = first_divergence([token(1)], [token(1), token(2)])
    assert parted is not None
    assert (parted.index, parted.reference_id, parted.candidate_id) == (1, None, 2)


def test_a_flip_of_two_close_labels_is_numeric() -> None:
    close = {"water": -0.69, "fire": -0.70}
    case = compare_case(
        observation(label_logprobs=close),
        flipped("desktop:f16", 0, label_logprobs={"water": -0.695, "fire": -0.694}),
        TOLERANCE,
    )
    assert case.flip == "numeric"
    assert case.reference_margin == pytest.approx(0.01)


def test_a_flip_of_a_sure_reference_is_real() -> None:
    assert compare_case(observation(), flipped("desktop:f16", 0), TOLERANCE).flip == "real"


def test_a_close_flip_on_another_prompt_is_real() -> None:
    close = {"water": -0.69, "fire": -0.70}
    case = compare_case(
        observation(label_logprobs=close),
        flipped("desktop:f16", 0, label_logprobs=close, prompt_ids=[1]),
        TOLERANCE,
    )
    assert case.flip == "real"


def test_a_flip_after_the_first_token_is_as_close_as_the_tokens_that_parted() -> None:
    def flip(rival: float) -> str | None:
        ours = observation(tokens=[token(1), token(2, -0.69, {2: -0.69, 3: rival})])
        theirs = flipped("desktop:f16", 0, tokens=[token(1), token(3)])
        return compare_case(ours, theirs, TOLERANCE).flip

    assert flip(-0.70) == "numeric"
    assert flip(-0.80) == "real"


def test_a_hop_that_changes_two_things_may_move_as_far_as_both() -> None:
    total = Tolerance(0.25, 0.5) + Tolerance(0.5, 0.25)
    assert total == Tolerance(0.75, 0.75)
