import json
import math

import pytest
from statsmodels.stats.proportion import proportion_confint

from harness import ladder
from harness.comparison.compare import HopLimits, accuracies, compare
from harness.comparison.hop import HopResult
from harness.ladder import Hop
from harness.records.inquiry import Inquiry
from harness.records.observation import Observation

from ..run_factory import (
    DRIVEN,
    LABELS,
    TOLERANCE,
    driven_case,
    evidence,
    fault,
    flipped,
    observation,
    observations,
)

HOPS = ladder.hops(ladder.parse_ladder(["torch", "desktop:f16"]), ())
LIMITS = HopLimits(TOLERANCE, DRIVEN)


def within(hop: Hop) -> HopLimits:
    """The same on every hop."""
    return LIMITS


def conversion(
    candidate: list[Observation],
    reference: list[Observation] | None = None,
    labels: dict[str, str] | None = None,
    inquiry: Inquiry | None = None,
) -> HopResult:
    seen = (reference if reference is not None else observations("torch")) + candidate
    (hop,) = compare(seen, HOPS, within, labels, images_per_session=3, inquiry=inquiry)
    return hop


def test_a_clean_hop_agrees_on_every_case() -> None:
    hop = conversion(observations("desktop:f16"))
    assert (hop.name, hop.cases, hop.agreement) == ("conversion", 24, 1.0)
    assert (hop.prompt_ids_equal.count, hop.prompt_ids_equal.of) == (24, 24)
    assert (hop.drift, hop.blame, hop.differing) == (False, None, ())


def test_agreement_carries_its_exact_bounds() -> None:
    candidate = [flipped("desktop:f16", 0), *observations("desktop:f16")[1:]]
    hop = conversion(candidate)
    low, high = proportion_confint(23, 24, alpha=0.05, method="beta")
    assert hop.agreement == pytest.approx(23 / 24)
    assert (hop.agreement_low, hop.agreement_high) == pytest.approx((low, high))
    assert hop.text_agreement == hop.label_agreement


def test_one_other_word_makes_another_session() -> None:
    candidate = observations("desktop:f16")
    candidate[0] = flipped("desktop:f16", 0)
    candidate[4], candidate[5] = flipped("desktop:f16", 4), flipped("desktop:f16", 5)
    hop = conversion(candidate)
    low, high = proportion_confint(6, 8, alpha=0.05, method="beta")
    share = hop.session_agreement
    assert (hop.sessions, share.count, share.of) == (8, 6, 8)
    assert (share.low, share.high) == pytest.approx((low, high))


def test_other_text_with_the_same_words_is_the_same_session() -> None:
    hop = conversion(observations("desktop:f16", text="Water."))
    assert (hop.session_agreement.count, hop.text_agreement.count) == (8, 0)


def test_only_sessions_that_both_arms_answered_whole_are_counted() -> None:
    candidate = observations("desktop:f16", 11)
    candidate[1] = observation("desktop:f16", 1, error=fault(), label=None, text="", tokens=[])
    hop = conversion(candidate, observations("torch", 11))
    assert (hop.cases, hop.sessions, hop.session_agreement.count) == (10, 2, 2)


def test_an_answer_that_is_read_as_no_label_on_one_side_makes_another_session() -> None:
    candidate = observations("desktop:f16")
    candidate[0] = observation("desktop:f16", 0, label=None, text="hm")
    assert conversion(candidate).session_agreement.count == 7


def test_a_hop_written_before_sessions_were_counted_can_be_read() -> None:
    document = json.loads(conversion(observations("desktop:f16")).model_dump_json())
    del document["sessions"], document["session_agreement"]
    hop = HopResult.model_validate(document)
    assert (hop.sessions, hop.session_agreement.estimate) == (0, None)


def test_observations_are_paired_by_place_whatever_their_order() -> None:
    hop = conversion(list(reversed(observations("desktop:f16"))))
    assert hop.agreement == 1.0


def test_the_same_case_in_two_places_counts_twice() -> None:
    twice = [observation("torch", i, case_id="same") for i in range(2)]
    assert (
        conversion([observation("desktop:f16", i, case_id="same") for i in range(2)], twice).cases
        == 2
    )


def test_a_case_with_an_error_is_named_and_not_compared() -> None:
    broken = observation("desktop:f16", 5, error=fault("context_full"), label=None, text="")
    hop = conversion([*observations("desktop:f16", 5), broken])
    assert hop.cases == 5
    (seen,) = hop.faults
    assert (seen.side, seen.case_id, seen.kind) == ("candidate", "case-05", "context_full")
    assert hop.candidate_missing == 18


def test_an_error_of_the_reference_is_not_compared_either() -> None:
    reference = observations("torch", 3)
    reference[1] = observation("torch", 1, error=fault(), label=None, text="", tokens=[])
    hop = conversion(observations("desktop:f16", 3), reference)
    assert (hop.cases, hop.agreement) == (2, 1.0)
    assert [(seen.side, seen.case_id) for seen in hop.faults] == [("reference", "case-01")]


def test_log_probability_differences_are_over_every_label_of_every_case() -> None:
    moved = observation("desktop:f16", 0, label_logprobs=LABELS | {"wood": -5.008})
    hop = conversion([moved, *observations("desktop:f16")[1:]])
    spread = hop.label_logprob_difference
    assert spread is not None
    assert (spread.n, spread.minimum) == (24 * 5, 0.0)
    assert spread.maximum == pytest.approx(0.008)
    assert spread.mean == pytest.approx(0.008 / 120)


def test_single_causes_are_counted_and_the_first_stage_takes_the_blame() -> None:
    candidate = observations("desktop:f16")
    candidate[3] = observation("desktop:f16", 3, text="Water")
    candidate[7] = observation("desktop:f16", 7, prompt_ids=[1])
    hop = conversion(candidate)
    assert (hop.drift, hop.blame) == (True, "tokens")
    assert hop.stage_cases == {"tokens": 1, "decode": 1}
    assert [blame.stage for blame in hop.blames] == ["tokens", "decode"]
    assert [case.case_id for case in hop.differing] == ["case-03", "case-07"]


def test_a_tie_broken_by_rounding_is_shown_and_is_no_drift() -> None:
    close = {"water": -0.693, "fire": -0.694}
    reference = observations("torch")
    reference[0] = observation("torch", 0, label_logprobs=close)
    candidate = observations("desktop:f16")
    candidate[0] = flipped("desktop:f16", 0, label_logprobs=close)
    hop = conversion(candidate, reference)
    assert (hop.drift, hop.blame, hop.blames, hop.numeric_flips) == (False, None, (), 1)
    assert [case.case_id for case in hop.differing] == ["case-00"]


def test_distances_are_spread_over_the_cases_that_told_them() -> None:
    reference = observations("torch", evidence=evidence())
    candidate = observations("desktop:f16", evidence=evidence(embed=0.0001))
    candidate[0] = observation("desktop:f16", 0)
    hop = conversion(candidate, reference)
    assert list(hop.distances) == ["pixels", "embed", "prefill"]
    assert (hop.distances["pixels"].n, hop.distances["pixels"].maximum) == (23, 0.0)
    assert hop.distances["embed"].mean == pytest.approx(0.0001, rel=0.01)
    assert hop.tolerance_distances == {"pixels": 0.001, "embed": 0.01, "prefill": 0.05}


def test_a_driven_hop_shows_its_layers_and_judges_by_nothing_else() -> None:
    far = observations("desktop:f16", label_logprobs=LABELS | {"wood": -9.0})
    clean = Inquiry(driven=(driven_case(HOPS[0]), driven_case(HOPS[0], 1)))
    hop = conversion(far, inquiry=clean)
    assert (hop.drift, hop.driven_cases, len(hop.driven)) == (False, 2, 18)
    assert math.inf == hop.tolerance_label_logprob == hop.tolerance_distances["prefill"]
    assert (hop.tolerance_flip_margin, hop.tolerance_distances["pixels"]) == (0.02, 0.001)
    broken = Inquiry(driven=(driven_case(HOPS[0], 0, {"vision patches": 0.5}),))
    hop = conversion(far, inquiry=broken)
    assert (hop.blame, hop.blames[0].layer, hop.stage_cases) == ("embed", "vision patches", {})
    assert conversion(far).blame == "prefill"


def test_cases_within_the_flip_margin_are_coin_tosses() -> None:
    reference = observations("torch")
    reference[:3] = observations("torch", 3, label_logprobs={"water": -0.70, "fire": -0.71})
    assert conversion(observations("desktop:f16"), reference).coin_tosses == 3


def test_canaries_are_no_cases() -> None:
    seen = [observation("desktop:f16", 24, canary="black", label=None, text="")]
    hop = conversion(observations("desktop:f16") + seen)
    assert (hop.cases, hop.candidate_missing, hop.reference_missing) == (24, 0, 0)
    labels = {f"case-{index:02d}": "water" for index in range(30)}
    (accuracy,) = accuracies(observations("desktop:f16") + seen, labels)
    assert accuracy.right.of == 24


def test_flips_are_told_apart() -> None:
    close = {"water": -0.693, "fire": -0.694}
    reference = observations("torch")
    reference[0] = observation("torch", 0, label_logprobs=close)
    candidate = observations("desktop:f16")
    candidate[0] = flipped("desktop:f16", 0, label_logprobs=close)
    candidate[1] = flipped("desktop:f16", 1)
    hop = conversion(candidate, reference)
    assert (hop.numeric_flips, hop.real_flips) == (1, 1)


def test_margin_spread_is_how_far_margins_moved() -> None:
    moved = observations("desktop:f16", label_logprobs=LABELS | {"water": -0.104})
    assert conversion(moved).margin_spread_p999 == pytest.approx(0.004)


def test_accuracy_is_paired_over_labelled_cases() -> None:
    labels = {f"case-{index:02d}": "water" for index in range(20)}
    candidate = [flipped("desktop:f16", index) for index in range(6)]
    candidate += observations("desktop:f16")[6:]
    paired = conversion(candidate, labels=labels).accuracy
    assert paired is not None
    assert (paired.cases, paired.both_right) == (20, 14)
    assert (paired.only_reference_right, paired.only_candidate_right) == (6, 0)
    assert paired.p_value == pytest.approx(2 * 0.5**6)
    assert conversion(candidate).accuracy is None


def test_accuracy_of_an_arm_leaves_out_what_it_did_not_answer() -> None:
    seen = [*observations("torch", 3), observation("torch", 3, error=fault())]
    (accuracy,) = accuracies(seen, {"case-00": "water", "case-01": "fire", "case-03": "water"})
    assert (accuracy.arm, accuracy.right.count, accuracy.right.of) == ("torch", 1, 2)


def test_an_arm_that_is_absent_leaves_an_empty_hop() -> None:
    hop = conversion([])
    assert (hop.cases, hop.agreement, hop.agreement_low) == (0, None, None)
    assert hop.candidate_missing == 24


def test_phones_are_compared_apart() -> None:
    arms = ladder.parse_ladder(["desktop:q8_0", "phone:q8_0"])
    seen = observations("desktop:q8_0") + observations("phone:q8_0", phone="A")
    seen += [flipped("phone:q8_0", index, "B") for index in range(24)]
    hops = ladder.hops(arms, ("A", "B"))
    first, second = compare(seen, hops, within, images_per_session=3)
    assert (first.phone, first.agreement) == ("A", 1.0)
    assert (second.phone, second.agreement) == ("B", 0.0)


def test_a_hop_with_broken_numbers_is_strict_json_and_reads_back() -> None:
    hop = conversion(observations("desktop:f16", label_logprobs=LABELS | {"wood": math.nan}))
    text = hop.model_dump_json()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads(text, parse_constant=refuse)
    back = HopResult.model_validate_json(text)
    assert back.label_logprob_difference is not None
    assert back.label_logprob_difference.maximum == math.inf
