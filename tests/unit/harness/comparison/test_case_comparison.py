import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.runner.protocol import Evidence, Fingerprint
from harness.comparison.case_comparison import (
    CaseComparison,
    compare_case,
    distance,
    label_differences,
    label_margin,
)
from harness.comparison.divergence import first_divergence
from harness.stage import STAGES
from harness.tolerance import Tolerance

from ..run_factory import LABELS, TOLERANCE, evidence, flipped, moved, observation, token

SMALL = {"pixels": 0.0005, "embed": 0.005, "prefill": 0.02}
"""Distances within tolerance."""


def compared(**candidate: object) -> CaseComparison:
    reference = observation(evidence=evidence())
    theirs = {"evidence": evidence(**SMALL)} | candidate
    return compare_case(reference, observation("desktop:f16", **theirs), TOLERANCE)


def test_equal_answers_have_no_blame() -> None:
    case = compared()
    assert case.blame is None
    assert case.first_step_kl == 0.0
    assert case.flip is None


@pytest.mark.parametrize(
    ("changed", "blame"),
    [
        ({"pixels_sha256": "f" * 64}, "resize"),
        ({"grid": (2, 2)}, "tile"),
        ({"image_tokens": 8}, "tile"),
        ({"evidence": evidence(pixels=0.002)}, "pixels"),
        ({"evidence": evidence(embed=0.02)}, "embed"),
        ({"evidence": evidence(prefill=0.1)}, "prefill"),
        ({"prompt_ids": [1, -1, 2]}, "tokens"),
        ({"label_logprobs": LABELS | {"wood": -5.02}}, "prefill"),
        ({"tokens": [token(10), token(3)]}, "decode"),
        ({"text": "Water"}, "decode"),
        ({"label": "fire"}, "label"),
    ],
)
def test_blame_is_the_stage_that_differs(changed: dict[str, Any], blame: str) -> None:
    case = compared(**changed)
    assert (case.blame, case.causes, case.beyond) == (blame, (blame,), (blame,))


def test_what_follows_from_a_cause_is_none() -> None:
    case = compared(
        prompt_ids=[1], label_logprobs=LABELS | {"wood": -9.0}, tokens=[token(3)], text="fire"
    )
    assert case.causes == ("tokens",)
    assert case.beyond == ("tokens", "prefill", "decode")


def test_the_pictures_branch_has_one_cause_the_first() -> None:
    case = compared(pixels_sha256="f" * 64, evidence=evidence(pixels=0.5, embed=0.5, prefill=0.5))
    assert case.causes == ("resize",)
    assert case.beyond == ("resize", "pixels", "embed", "prefill")


def test_picture_and_prompt_are_causes_of_their_own() -> None:
    case = compared(prompt_ids=[1, 9, -1, -1, 2], evidence=evidence(embed=0.5, prefill=0.5))
    assert (case.blame, case.causes) == ("embed", ("embed", "tokens"))


FRAME, GLOBAL, TILE, BREAK = 90, 91, 92, 93
SINGLE = [5, 6, FRAME, GLOBAL, -1, -1, FRAME, 7, 8]
SPLIT = [5, 6, FRAME, TILE, -1, -1, BREAK, FRAME, GLOBAL, -1, -1, FRAME, 7, 8]


def tiled(reference: list[int], candidate: list[int]) -> CaseComparison:
    ours = observation(prompt_ids=reference, evidence=evidence())
    theirs = observation(
        "desktop:f16",
        prompt_ids=candidate,
        grid=(1, 1),
        image_tokens=8,
        evidence=evidence(tokens=8),
    )
    return compare_case(ours, theirs, TOLERANCE)


def test_another_grid_explains_the_ids_of_its_tiles() -> None:
    case = tiled(SINGLE, SPLIT)
    assert case.causes == ("tile",)
    assert case.beyond == ("tile", "embed", "tokens")
    assert case.distances["embed"] == math.inf


@pytest.mark.parametrize(
    "other",
    [
        [9, *SPLIT],
        [5, *SPLIT[2:]],
        [*SPLIT, 9],
        [*SPLIT[:-2], 8],
        [94 if token == FRAME else token for token in SPLIT],
        [5, 6, 7, 8],
    ],
)
def test_another_grid_explains_no_other_prompt(other: list[int]) -> None:
    assert tiled(SINGLE, other).causes == ("tile", "tokens")


def test_ids_inside_the_image_differ_by_themselves_on_the_same_grid() -> None:
    case = compare_case(
        observation(prompt_ids=SINGLE),
        observation("desktop:f16", prompt_ids=[5, 6, FRAME, 99, -1, -1, FRAME, 7, 8]),
        TOLERANCE,
    )
    assert case.causes == ("tokens",)
    parted = case.prompt_difference
    assert parted is not None
    assert (parted.index, parted.reference_id, parted.candidate_id) == (3, GLOBAL, 99)


def test_a_prompt_that_ends_earlier_parts_where_it_ended() -> None:
    parted = compared(prompt_ids=[1, -1, -1]).prompt_difference
    assert parted is not None
    assert (parted.index, parted.candidate_id, parted.candidate_ids) == (3, None, 3)


def test_other_text_for_the_same_ids_has_a_cause_of_its_own() -> None:
    case = compared(text="Wasser", label=None, evidence=evidence(embed=0.5, prefill=0.5))
    assert case.causes == ("embed", "decode")


def test_another_reading_of_the_same_text_has_a_cause_of_its_own() -> None:
    assert compared(label="fire", evidence=evidence(embed=0.5)).causes == ("embed", "label")


def test_a_stage_that_one_arm_does_not_tell_takes_no_blame() -> None:
    case = compared(pixels_sha256=None, grid=None, image_tokens=None, evidence=Evidence())
    assert (case.pixels_equal, case.grid_equal, case.image_tokens_equal) == (None, None, None)
    assert (case.blame, case.distances) == (None, {})


UNTOLD: dict[str, Any] = {
    "pixels_sha256": None, "grid": None, "image_tokens": None, "prompt_ids": None, "tokens": None,
    "label_logprobs": {}, "evidence": Evidence(),
}  # fmt: skip


def test_of_what_an_arm_does_not_tell_nothing_is_equal() -> None:
    case = compared(**UNTOLD)
    assert case.causes == ()
    same = (case.pixels_equal, case.grid_equal, case.image_tokens_equal, case.prompt_ids_equal)
    assert (*same, case.tokens_equal) == (None,) * 5
    assert (case.first_step_kl, case.divergence, case.prompt_difference) == (None, None, None)


def test_other_words_without_ids_have_no_stage_unless_they_end_early() -> None:
    other = compared(**UNTOLD, text="fire", label="fire")
    assert (other.causes, other.flip) == ((), "real")
    assert compared(**UNTOLD, text="wat", label=None).causes == ("decode",)


def test_embeddings_are_blamed_where_one_arm_tells_no_pixel_values() -> None:
    told = evidence(embed=0.5, prefill=0.5).model_copy(update={"pixels": None})
    case = compared(evidence=told)
    assert (case.blame, list(case.distances)) == ("embed", ["embed", "prefill"])


def test_a_difference_within_tolerance_takes_no_blame() -> None:
    assert compared(label_logprobs=LABELS | {"wood": -5.009}).blame is None


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_logprob_that_is_no_number_never_passes(broken: float) -> None:
    case = compared(label_logprobs=LABELS | {"wood": broken})
    assert case.blame == "prefill"
    assert case.label_logprob_differences["wood"] == math.inf


def no_number() -> Fingerprint:
    return moved((4, 16), 0.0).model_copy(update={"finite": False})


def test_nothing_that_is_no_number_hides_behind_an_infinite_tolerance() -> None:
    anything = Tolerance(*[math.inf] * 5)
    for broken in (
        {"label_logprobs": LABELS | {"wood": math.nan}},
        {"evidence": Evidence(prefill=no_number())},
    ):
        theirs = observation("desktop:f16", **broken)
        case = compare_case(observation(evidence=Evidence(prefill=no_number())), theirs, anything)
        assert case.blame == "prefill"


def test_equal_tensors_that_are_no_numbers_are_apart() -> None:
    assert distance(no_number(), no_number()) == math.inf


def test_tensors_too_large_for_their_projection_are_apart() -> None:
    huge = moved((4, 16), 0.0).model_copy(update={"projection": (math.inf,) * 64, "crc32": 1})
    assert distance(huge, moved((4, 16), 0.0)) == math.inf


def test_tensors_of_other_shapes_are_infinitely_apart() -> None:
    assert distance(moved((4, 16), 0.0), moved((8, 16), 0.0)) == math.inf


@given(st.floats(-0.9, 10.0))
def test_distance_is_over_the_references_length(by: float) -> None:
    assert distance(moved((4, 16), 0.0), moved((4, 16), by)) == pytest.approx(abs(by), abs=1e-5)


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


def test_a_close_flip_on_other_pixel_values_is_real() -> None:
    close = {"water": -0.69, "fire": -0.70}
    case = compare_case(
        observation(label_logprobs=close, evidence=evidence()),
        flipped("desktop:f16", 0, label_logprobs=close, evidence=evidence(pixels=0.01)),
        TOLERANCE,
    )
    assert case.flip == "real"


def test_a_flip_is_as_close_as_the_two_tokens_where_the_reference_tells_both() -> None:
    close = {"water": -0.69, "land": -0.70, "fire": -3.0}
    ours = observation(label_logprobs=close, tokens=[token(1, -0.69, {1: -0.69, 20: -3.0})])
    assert compare_case(ours, flipped("desktop:f16", 0), TOLERANCE).flip == "real"


def test_a_tie_broken_by_rounding_is_no_cause() -> None:
    ours = observation(tokens=[token(1), token(2, -0.69, {2: -0.69, 3: -0.70})])
    theirs = observation("desktop:f16", tokens=[token(1), token(3)], text="Water")
    case = compare_case(ours, theirs, TOLERANCE)
    assert (case.causes, case.text_equal, case.flip) == ((), False, None)


def test_a_hop_that_changes_two_things_may_move_as_far_as_both() -> None:
    one, other = Tolerance(*range(1, 6)), Tolerance(*range(10, 60, 10))
    assert one + other == Tolerance(11, 22, 33, 44, 55)


def shown_only(ours: dict[str, Any], theirs: dict[str, Any]) -> CaseComparison:
    """As on a hop that was driven, with logits that are far apart."""
    reference = observation(**({"evidence": evidence()} | ours))
    candidate = observation("desktop:f16", **({"evidence": evidence(prefill=0.5)} | theirs))
    return compare_case(reference, candidate, TOLERANCE.shown_only)


def test_where_driven_layers_decide_total_distances_are_shown_alone() -> None:
    moved = {"label_logprobs": LABELS | {"wood": -9.0}, "evidence": evidence(embed=0.5)}
    case = shown_only({}, moved)
    assert (case.causes, case.beyond) == ((), ())
    assert case.distances["embed"] == pytest.approx(0.5, abs=0.01)


def test_a_flip_after_other_logits_is_no_choice_of_its_own() -> None:
    flip = {"tokens": [token(20)], "text": "fire", "label": "fire"}
    case = shown_only({}, flip)
    assert (case.causes, case.beyond, case.flip) == ((), ("decode", "label"), "real")
    assert shown_only({}, flip | {"evidence": evidence()}).causes == ("decode",)


@pytest.mark.parametrize(
    "theirs",
    [
        {"tokens": [token(3, -2.0, {10: -0.1, 3: -2.0})], "text": "fire"},
        {"tokens": [token(10)]},
        {"tokens": [token(10), token(2), token(5)]},
        {"text": "Wasser"},
    ],
    ids=["not the likeliest", "ends earlier", "ends later", "spelled differently"],
)
def test_a_choice_of_its_own_is_a_cause_whatever_the_logits(theirs: dict[str, Any]) -> None:
    assert shown_only({}, theirs).causes == ("decode",)


def test_both_arms_may_take_tokens_that_are_not_the_likeliest() -> None:
    ours = {"tokens": [token(3, -2.0, {10: -0.1, 3: -2.0})]}
    theirs = {"tokens": [token(4, -2.0, {10: -0.1, 4: -2.0})]}
    assert shown_only(ours, theirs).causes == ()


def test_logits_that_are_no_numbers_choose_nothing_of_their_own() -> None:
    broken = {"wood": math.nan}
    theirs = {"tokens": [token(7, math.nan, {7: math.nan})], "label_logprobs": LABELS | broken}
    assert shown_only({}, theirs).causes == ("prefill",)


DIFFERENCES: dict[str, dict[str, Any]] = {
    "resize": {"pixels_sha256": "f" * 64},
    "tile": {"image_tokens": 9},
    "tokens": {"prompt_ids": [1, -1, -1, 3]},
    "logprobs": {"label_logprobs": LABELS | {"wood": -9.0}},
    "ids": {"tokens": [token(3)]},
    "text": {"text": "fire"},
    "label": {"label": "fire"},
}


@given(
    st.sets(st.sampled_from(sorted(DIFFERENCES))),
    st.tuples(*[st.sampled_from([0.0, 1e-4, 0.5])] * 3),
)
def test_whatever_differs_has_a_cause_and_a_cause_is_what_differs(
    names: set[str], distances: tuple[float, float, float]
) -> None:
    changed: dict[str, Any] = {"evidence": evidence(*distances)}
    for name in names:
        changed |= DIFFERENCES[name]
    case = compared(**changed)
    assert bool(case.causes) == bool(case.beyond) == bool(names or max(distances) > 0.1)
    assert set(case.causes) <= set(case.beyond)
    assert list(case.causes) == sorted(case.causes, key=STAGES.index)
    assert case.blame == next(iter(case.causes), None)


def test_a_comparison_is_strict_json_and_reads_back() -> None:
    case = tiled(SINGLE, SPLIT)
    assert CaseComparison.model_validate_json(case.model_dump_json()) == case
