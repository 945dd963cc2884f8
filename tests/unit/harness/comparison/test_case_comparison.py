import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.devices.runner.protocol import Evidence, Fingerprint
from driftloop.harness.comparison.case_comparison import (
    CaseComparison,
    compare_case,
    distance,
    first_divergence,
    label_differences,
    label_margin,
)
from driftloop.harness.stage import STAGES
from driftloop.harness.tolerance import Tolerance

from ..run_factory import LABELS, TOLERANCE, evidence, moved, observation, token

SMALL = evidence(pixels=0.0005, embed=0.005, prefill=0.02)
"""Distances within tolerance."""
FAR = evidence(pixels=0.5, embed=0.5, prefill=0.5)
UNDECIDED: dict[str, Any] = {"label_logprobs": {"water": -0.69, "fire": -0.70}}
FLIP: dict[str, Any] = {"tokens": [token(20)], "text": "fire", "label": "fire"}
UNLIKELY = token(3, -2.0, {10: -0.1, 3: -2.0})


def compared(**candidate: object) -> CaseComparison:
    reference = observation(evidence=evidence())
    theirs = observation("desktop:f16", **({"evidence": SMALL} | candidate))
    return compare_case(reference, theirs, TOLERANCE)


def test_equal_answers_have_no_blame() -> None:
    case = compared()
    assert (case.blame, case.first_step_kl, case.flip) == (None, 0.0, None)
    assert compared(label_logprobs=LABELS | {"wood": -5.009}).blame is None


@pytest.mark.parametrize(
    ("changed", "causes", "beyond"),
    [
        ({"pixels_sha256": "f" * 64}, "resize", ""),
        ({"grid": (2, 2)}, "tile", ""),
        ({"image_tokens": 8}, "tile", ""),
        ({"evidence": evidence(pixels=0.002)}, "pixels", ""),
        ({"evidence": evidence(embed=0.02)}, "embed", ""),
        ({"evidence": evidence(prefill=0.1)}, "prefill", ""),
        ({"prompt_ids": [1, -1, 2]}, "tokens", ""),
        ({"label_logprobs": LABELS | {"wood": -5.02}}, "prefill", ""),
        ({"tokens": [token(10), token(3)]}, "decode", ""),
        ({"text": "Water"}, "decode", ""),
        ({"label": "fire"}, "label", ""),
        # What follows from a cause is none.
        (
            {"prompt_ids": [1], "label_logprobs": LABELS | {"wood": -9.0}, "tokens": [token(3)]},
            "tokens",
            "tokens prefill decode",
        ),
        # The picture's branch has one cause: the first.
        ({"pixels_sha256": "f" * 64, "evidence": FAR}, "resize", "resize pixels embed prefill"),
        # Picture and prompt are causes of their own.
        (
            {"prompt_ids": [1, 9, -1, -1, 2], "evidence": evidence(embed=0.5, prefill=0.5)},
            "embed tokens",
            "embed tokens prefill",
        ),
        # So are other text for the same ids, and another reading of the same text.
        (
            {"text": "Wasser", "label": None, "evidence": evidence(embed=0.5)},
            "embed decode",
            "embed decode label",
        ),
        (
            {"label": "fire", "evidence": evidence(embed=0.5)},
            "embed label",
            "embed label",
        ),
    ],
)
def test_causes_are_the_stages_beyond_tolerance_that_no_other_explains(
    changed: dict[str, Any], causes: str, beyond: str
) -> None:
    case = compared(**changed)
    assert case.causes == tuple(causes.split())
    assert case.blame == case.causes[0]
    assert case.beyond == tuple((beyond or causes).split())


FRAME, GLOBAL, TILE, BREAK = 90, 91, 92, 93
SINGLE = [5, 6, FRAME, GLOBAL, -1, -1, FRAME, 7, 8]
SPLIT = [5, 6, FRAME, TILE, -1, -1, BREAK, FRAME, GLOBAL, -1, -1, FRAME, 7, 8]


def tiled(candidate: list[int]) -> CaseComparison:
    other = {"grid": (1, 1), "image_tokens": 8, "evidence": evidence(tokens=8)}
    ours = observation(prompt_ids=SINGLE, evidence=evidence())
    return compare_case(ours, observation("x", prompt_ids=candidate, **other), TOLERANCE)


def test_another_grid_explains_the_ids_of_its_tiles() -> None:
    case = tiled(SPLIT)
    assert case.causes == ("tile",)
    assert case.beyond == ("tile", "embed", "tokens")
    assert case.distances["embed"] == math.inf
    assert CaseComparison.model_validate_json(case.model_dump_json()) == case, "strict JSON"


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
    assert tiled(other).causes == ("tile", "tokens")


@pytest.mark.parametrize(
    ("ours", "theirs", "parted"),
    [
        (SINGLE, [5, 6, FRAME, 99, -1, -1, FRAME, 7, 8], (3, GLOBAL, 99, 9)),
        ([1, -1, -1, 2], [1, -1, -1], (3, 2, None, 3)),
    ],
    ids=["inside the image, on the same grid", "one that ends earlier"],
)
def test_prompts_part_at_the_first_id_that_differs(
    ours: list[int], theirs: list[int], parted: tuple[int, int, int | None, int]
) -> None:
    pair = observation(prompt_ids=ours), observation("desktop:f16", prompt_ids=theirs)
    case = compare_case(*pair, TOLERANCE)
    found = case.prompt_difference
    assert case.causes == ("tokens",)
    assert found is not None
    ids = (found.index, found.reference_id, found.candidate_id, found.candidate_ids)
    assert ids == parted


UNTOLD: dict[str, Any] = {
    "pixels_sha256": None, "grid": None, "image_tokens": None, "prompt_ids": None, "tokens": None,
    "label_logprobs": {}, "evidence": Evidence(),
}  # fmt: skip


def test_what_an_arm_does_not_report_is_neither_equal_nor_blamed() -> None:
    case = compared(**UNTOLD)
    assert (case.causes, case.blame, case.distances) == ((), None, {})
    same = (case.pixels_equal, case.grid_equal, case.image_tokens_equal, case.prompt_ids_equal)
    assert (*same, case.tokens_equal) == (None,) * 5
    assert (case.first_step_kl, case.divergence, case.prompt_difference) == (None, None, None)


def test_other_words_without_ids_have_no_stage_unless_they_end_early() -> None:
    other = compared(**UNTOLD, text="fire", label="fire")
    assert (other.causes, other.flip) == ((), "real")
    assert compared(**UNTOLD, text="wat", label=None).causes == ("decode",)


def test_embeddings_are_blamed_where_one_arm_reports_no_pixel_values() -> None:
    case = compared(evidence=FAR.model_copy(update={"pixels": None}))
    assert (case.blame, list(case.distances)) == ("embed", ["embed", "prefill"])


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_logprob_that_is_not_finite_never_passes(broken: float) -> None:
    case = compared(label_logprobs=LABELS | {"wood": broken})
    assert case.blame == "prefill"
    assert case.label_logprob_differences["wood"] == math.inf


NOT_FINITE = moved((4, 16), 0.0).model_copy(update={"finite": False})


@pytest.mark.parametrize(
    "broken",
    [
        {"label_logprobs": LABELS | {"wood": math.nan}},
        {"evidence": Evidence(prefill=NOT_FINITE)},
    ],
)
def test_what_is_not_finite_is_beyond_an_infinite_tolerance(broken: dict[str, Any]) -> None:
    ours = observation(evidence=Evidence(prefill=NOT_FINITE))
    anything = Tolerance(*[math.inf] * 5)
    assert compare_case(ours, observation("x", **broken), anything).blame == "prefill"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NOT_FINITE, NOT_FINITE),
        (
            moved((4, 16), 0.0).model_copy(update={"projection": (math.inf,) * 64, "crc32": 1}),
            moved((4, 16), 0.0),
        ),
        (moved((4, 16), 0.0), moved((8, 16), 0.0)),
    ],
    ids=["not finite", "too large for their projection", "other shapes"],
)
def test_tensors_without_a_distance_are_infinitely_far(
    one: Fingerprint, other: Fingerprint
) -> None:
    assert distance(one, other) == math.inf


@given(st.floats(-0.9, 10.0))
def test_distance_is_relative_to_the_references_length(by: float) -> None:
    assert distance(moved((4, 16), 0.0), moved((4, 16), by)) == pytest.approx(abs(by), abs=1e-5)


def test_nan_on_both_sides_differs_and_an_impossible_label_does_not() -> None:
    assert label_differences({"wood": math.nan}, {"wood": math.nan}) == {"wood": math.inf}
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
    assert (parted.reference_margin, parted.candidate_margin) == pytest.approx((0.25, 1.0))
    outside = first_divergence([token(1)], [token(50)])
    assert outside is not None
    assert outside.reference_margin is None, "the other token is not in its top"
    ended = first_divergence([token(1)], [token(1), token(2)])
    assert ended is not None
    assert (ended.index, ended.reference_id, ended.candidate_id) == (1, None, 2)


def second(rival: float) -> dict[str, Any]:
    """An answer whose second token is preferred to token 3 by as much as `rival` is below -0.69."""
    return {"tokens": [token(1), token(2, -0.69, {2: -0.69, 3: rival})]}


@pytest.mark.parametrize(
    ("ours", "theirs", "flip"),
    [
        (UNDECIDED, {"label_logprobs": {"water": -0.695, "fire": -0.694}}, "numeric"),
        ({}, {}, "real"),
        # Close, but on another prompt or on other pixel values.
        (UNDECIDED, UNDECIDED | {"prompt_ids": [1]}, "real"),
        (
            UNDECIDED | {"evidence": evidence()},
            UNDECIDED | {"evidence": evidence(pixels=0.01)},
            "real",
        ),
        # After the first token it is as close as the tokens that parted.
        (second(-0.70), {"tokens": [token(1), token(3)]}, "numeric"),
        (second(-0.80), {"tokens": [token(1), token(3)]}, "real"),
        # So it is at the first, where the reference has both in its top.
        (UNDECIDED | {"tokens": [token(1, -0.69, {1: -0.69, 20: -3.0})]}, {}, "real"),
    ],
)
def test_a_flip_is_numeric_where_the_reference_was_undecided_on_the_same_input(
    ours: dict[str, Any], theirs: dict[str, Any], flip: str
) -> None:
    candidate = observation("desktop:f16", **(FLIP | theirs))
    case = compare_case(observation(**ours), candidate, TOLERANCE)
    assert case.flip == flip
    if "label_logprobs" in ours:
        assert case.reference_margin == pytest.approx(0.01)


def test_a_tie_broken_by_rounding_is_no_cause() -> None:
    theirs = observation("desktop:f16", tokens=[token(1), token(3)], text="Water")
    case = compare_case(observation(**second(-0.70)), theirs, TOLERANCE)
    assert (case.causes, case.text_equal, case.flip) == ((), False, None)


def test_a_hop_that_changes_two_things_may_move_as_far_as_both() -> None:
    one, other = Tolerance(*range(1, 6)), Tolerance(*range(10, 60, 10))
    assert one + other == Tolerance(11, 22, 33, 44, 55)


def shown_only(ours: dict[str, Any], theirs: dict[str, Any]) -> CaseComparison:
    """As on a hop that was driven, with logits that differ widely."""
    reference = observation(**({"evidence": evidence()} | ours))
    candidate = observation("desktop:f16", **({"evidence": evidence(prefill=0.5)} | theirs))
    return compare_case(reference, candidate, TOLERANCE.shown_only)


def test_where_driven_layers_decide_total_distances_are_only_shown() -> None:
    moved = {"label_logprobs": LABELS | {"wood": -9.0}, "evidence": evidence(embed=0.5)}
    case = shown_only({}, moved)
    assert (case.causes, case.beyond) == ((), ())
    assert case.distances["embed"] == pytest.approx(0.5, abs=0.01)


def test_a_flip_after_other_logits_is_no_choice_of_its_own() -> None:
    case = shown_only({}, FLIP)
    assert (case.causes, case.beyond, case.flip) == ((), ("decode", "label"), "real")
    assert shown_only({}, FLIP | {"evidence": evidence()}).causes == ("decode",)


@pytest.mark.parametrize(
    ("theirs", "causes"),
    [
        ({"tokens": [UNLIKELY], "text": "fire"}, ("decode",)),
        ({"tokens": [token(10)]}, ("decode",)),
        ({"tokens": [token(10), token(2), token(5)]}, ("decode",)),
        ({"text": "Wasser"}, ("decode",)),
        (
            {
                "tokens": [token(7, math.nan, {7: math.nan})],
                "label_logprobs": LABELS | {"wood": math.nan},
            },
            ("prefill",),
        ),
    ],
    ids=["not likeliest", "ends earlier", "ends later", "spelled differently", "not finite"],
)
def test_a_choice_of_its_own_is_a_cause_whatever_the_logits(
    theirs: dict[str, Any], causes: tuple[str, ...]
) -> None:
    assert shown_only({}, theirs).causes == causes


def test_both_arms_may_take_tokens_that_are_not_the_likeliest() -> None:
    theirs = {"tokens": [token(4, -2.0, {10: -0.1, 4: -2.0})]}
    assert shown_only({"tokens": [UNLIKELY]}, theirs).causes == ()


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
